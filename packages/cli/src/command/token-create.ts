import { Command, InvalidArgumentError, Option } from "commander";
import type { CreateTokenOptions } from "../serve/tokens.ts";
import { SCOPES } from "../server/access/scope.ts";
import { authFileOption } from "./auth-file-option.ts";
import { addHelpEnd } from "./help-end.ts";

/** Lengths of the units of a validity, in milliseconds. */
const UNITS: Readonly<Record<string, number>> = {
  h: 3_600_000,
  d: 86_400_000,
  w: 7 * 86_400_000,
  y: 365 * 86_400_000,
};

/** `tvix-store token create NAME` */
export function tokenCreateCommand(): Command {
  const command = new Command("create")
    .description("Adds a token to the auth file and prints it on stdout: nothing can show it again")
    .argument("<name>", "name of the token in logs and lists")
    .addOption(
      new Option(
        "--scope <scope...>",
        "what it allows: read, write (which includes read) or admin (which includes both)",
      )
        .choices(SCOPES)
        .makeOptionMandatory(),
    )
    .option(
      "--store-name <glob...>",
      'names of store paths that it may register, such as "hello-*" (default: any)',
    )
    .option(
      "--expires <time>",
      "how long it is valid, such as 12h, 90d, 4w or 1y (default: until it is revoked)",
      parseExpiry,
    )
    .addOption(authFileOption())
    .action(async (name: string, options: CreateTokenOptions) => {
      const { createToken } = await import("../serve/tokens.ts"); // no other command needs it
      const { run } = await import("../run.ts");
      await run((interrupt) => createToken(name, options, interrupt));
    });
  return addHelpEnd(command, {
    examples: [
      [
        "tvix-store token create ci --scope write --expires 90d --auth-file auth.toml",
        "makes a token that may push for 90 days",
      ],
      [
        "tvix-store token create hello --scope write --store-name 'hello-*' --auth-file auth.toml",
        "makes one that may only register store paths of these names",
      ],
    ],
  });
}

function parseExpiry(text: string): number {
  const [, count, unit] = /^([1-9][0-9]{0,4})([hdwy])$/.exec(text) ?? [];
  if (count === undefined) {
    throw new InvalidArgumentError("expected a number and h, d, w or y, such as 90d");
  }
  const now = Math.ceil(Date.now() / 1000) * 1000;
  return now + Number(count) * UNITS[unit!]!;
}
