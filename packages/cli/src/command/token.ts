import { Command } from "commander";
import { addHelpEnd } from "./help-end.ts";
import { tokenCreateCommand } from "./token-create.ts";
import { tokenListCommand } from "./token-list.ts";
import { tokenRevokeCommand } from "./token-revoke.ts";

/** `tvix-store token create|list|revoke` */
export function tokenCommand(): Command {
  const command = new Command("token")
    .description("Edits the auth file of a daemon, which notices it by itself")
    .addCommand(tokenCreateCommand())
    .addCommand(tokenListCommand())
    .addCommand(tokenRevokeCommand());
  return addHelpEnd(command, {
    examples: [
      ["export AUTH_FILE=/etc/tvix-store/auth.toml", "names the file for all commands"],
      ["tvix-store token create laptop --scope read", "prints a new token"],
      ["tvix-store daemon --auth-file /etc/tvix-store/auth.toml", "asks clients for a token"],
    ],
  });
}
