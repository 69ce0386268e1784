import { beforeAll, describe, expect, it } from "vitest";
import { tvixStore } from "./harness.ts";

/** The help of every command, by the words that name it. */
const helps = new Map<string, string>();

/** Reads the help of a command and, at the same time, of all below it. */
async function readHelp(words: readonly string[]): Promise<void> {
  const { status, stdout, stderr } = await tvixStore([...words, "--help"]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  helps.set(words.join(" "), stdout);
  await Promise.all(commandsIn(stdout).map((word) => readHelp([...words, word])));
}

/** Returns the commands that a help lists. */
function commandsIn(help: string): string[] {
  const [, list = ""] = /^Commands:\n((?: {2}.*\n)+)/m.exec(help) ?? [];
  const words = [...list.matchAll(/^ {2}([a-z][a-z-]*)/gm)].map(([, word]) => word!);
  return words.filter((word) => word !== "help");
}

/** Returns the options that a help explains. */
function optionsIn(help: string): string[] {
  return [...help.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)].map(([, name]) => name!);
}

beforeAll(() => readHelp([]));

describe("the help of", () => {
  it("the program lists its commands and exit statuses", () => {
    const help = helps.get("")!;
    expect(commandsIn(help)).toEqual(expect.arrayContaining(["daemon", "import", "cat", "token"]));
    expect(help).toMatch(/^Exit status:\n {2}0 /m);
  });

  it("every command has a description, examples and exit statuses", () => {
    for (const [words, help] of helps) {
      if (words === "") continue;
      const command = `tvix-store ${words}`;
      expect(help).toContain(`Usage: ${command} `);
      expect(help).toMatch(/^Usage: .*\n\n[A-Z]/);
      expect(help, `Expected an example of ${command}`).toMatch(
        new RegExp(`^Examples:\n(?: .*\n)* .*${command.split(" ").slice(0, 2).join(" ")}`, "m"),
      );
      expect(help, `Expected exit statuses of ${command}`).toMatch(/^Exit status:\n {2}0 /m);
    }
  });

  it("every command that has no others has the common options", () => {
    for (const [words, help] of helps) {
      const common = ["--config", "--log-level", "--log-format", "--quiet"];
      const expected = commandsIn(help).length > 0 ? [] : common;
      expect(optionsIn(help), words).toEqual(expect.arrayContaining(expected));
    }
  });
});
