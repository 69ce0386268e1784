import { Command } from "commander";
import { tokenCreateCommand } from "./token-create.ts";
import { tokenListCommand } from "./token-list.ts";
import { tokenRevokeCommand } from "./token-revoke.ts";

/** `tvix-store token create|list|revoke` */
export function tokenCommand(): Command {
  return new Command("token")
    .description("Edits the auth file of a daemon, which notices it by itself")
    .addCommand(tokenCreateCommand())
    .addCommand(tokenListCommand())
    .addCommand(tokenRevokeCommand());
}
