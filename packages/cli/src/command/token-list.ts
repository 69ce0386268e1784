import { Command } from "commander";
import type { TokenOptions } from "../serve/tokens.ts";
import { authFileOption } from "./auth-file-option.ts";
import { addHelpEnd } from "./help-end.ts";

/** `tvix-store token list` */
export function tokenListCommand(): Command {
  const command = new Command("list")
    .description("Prints the tokens in the auth file, without their secrets")
    .addOption(authFileOption())
    .action(async (options: TokenOptions) => {
      const { listTokens } = await import("../serve/tokens.ts"); // no other command needs it
      const { run } = await import("../run.ts");
      await run((interrupt) => listTokens(options, interrupt));
    });
  return addHelpEnd(command, {
    examples: [["tvix-store token list --auth-file auth.toml", "prints a line for each token"]],
  });
}
