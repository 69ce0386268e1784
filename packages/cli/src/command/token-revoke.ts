import { Command } from "commander";
import type { TokenOptions } from "../serve/tokens.ts";
import { authFileOption } from "./auth-file-option.ts";
import { addHelpEnd } from "./help-end.ts";

/** `tvix-store token revoke NAME` */
export function tokenRevokeCommand(): Command {
  const command = new Command("revoke")
    .description("Removes a token from the auth file")
    .argument("<name>", "name of the token, or its id")
    .addOption(authFileOption())
    .action(async (name: string, options: TokenOptions) => {
      const { revokeToken } = await import("../serve/tokens.ts"); // no other command needs it
      const { run } = await import("../run.ts");
      await run(() => revokeToken(name, options));
    });
  return addHelpEnd(command, {
    examples: [
      ["tvix-store token revoke ci --auth-file auth.toml", "refuses the token from now on"],
    ],
  });
}
