import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SigningKey } from "@tvix/store";
import pLimit from "p-limit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

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

/** Returns the helps of the commands that do something, rather than having subcommands. */
const leafHelps = () => [...helps].filter(([, help]) => commandsIn(help).length === 0);

const COMMON = ["--config", "--log-level", "--log-format", "--quiet"];

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
    for (const [words, help] of leafHelps()) {
      expect(optionsIn(help), words).toEqual(expect.arrayContaining(COMMON));
    }
  });
});

describe("the common options", () => {
  const folder = temporaryFolder();
  afterAll(() => folder[Symbol.dispose]());
  const memory = throughDaemon("memory://");
  const nowhere = join(folder.path, "nowhere/x");
  const key = join(folder.path, "key");
  writeFileSync(key, SigningKey.generate("test-1").toSecretText());

  /** Arguments with which each command fails, once it runs. */
  const failing: Readonly<Record<string, readonly string[]>> = {
    daemon: [`--signing-key-file=${nowhere}`, "--listen-address=127.0.0.1:0", ...memory],
    "nar-bridge": [`--signing-key-file=${nowhere}`, "--listen-address=127.0.0.1:0", ...memory],
    import: [nowhere, ...memory],
    copy: [nowhere, ...memory],
    ls: ["nonsense", ...memory],
    cat: ["nonsense", ...memory],
    nar: ["nonsense", ...memory],
    restore: ["nonsense", join(folder.path, "restored"), ...memory],
    "path-info": ["nonsense", ...memory],
    du: ["nonsense", ...memory],
    diff: ["nonsense", "nonsense", ...memory],
    sign: [`--key-file=${key}`, "nonsense", ...memory],
    mount: [nowhere, ...memory],
    virtiofs: [nowhere, ...memory],
    "token create": ["name", "--scope=read", `--auth-file=${nowhere}`],
    "token list": [`--auth-file=${nowhere}`],
    "token revoke": ["name", `--auth-file=${nowhere}`],
    "config show": ["nosuch"],
  };
  /** Arguments of those that cannot fail. */
  const working: Readonly<Record<string, readonly string[]>> = {
    completion: ["bash"],
    version: [],
  };

  it("are tried on every command", () => {
    const tried = [...Object.keys(failing), ...Object.keys(working)];
    expect(tried.sort()).toEqual(
      leafHelps()
        .map(([words]) => words)
        .sort(),
    );
  });

  it("decide what a command that fails writes on stderr, and the file has what is not typed", async () => {
    const config = join(folder.path, "config.toml");
    writeFileSync(config, 'log-format = "json"\nlog-level = "silent"\n');
    // A protocol that nobody knows is a warning, where --otlp asks for spans to be sent.
    const env = { OTEL_EXPORTER_OTLP_PROTOCOL: "pigeon", LOG_LEVEL: undefined };
    const check = async ([words, args]: readonly [string, readonly string[]]) => {
      const traced = optionsIn(helps.get(words)!).includes("--otlp") ? ["--otlp"] : [];
      const run = (...options: string[]) =>
        tvixStore([...words.split(" "), `--config=${config}`, ...options, ...traced, ...args], {
          env,
        });
      const [json, quiet] = [
        await run("--log-level=warn"),
        await run("--log-level=info", "--log-format=pretty", "--quiet"),
      ];
      const status = words === "diff" ? 2 : 1;
      expect({ words, ...json }).toMatchObject({ words, status, stdout: "" });
      expect({ words, ...quiet }).toMatchObject({ words, status, stdout: "" });
      expect({ words, stderr: json.stderr }).toEqual({
        words,
        stderr: expect.stringMatching(/^(\{.*\}\n)+$/),
      });
      const lines = json.stderr
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line));
      const levels = [...new Set(lines.map(({ level }) => level))];
      expect({ words, levels }).toEqual({ words, levels: [...traced.map(() => 40), 50] });
      if (traced.length > 0) expect(lines[0].msg).toContain("OTEL_EXPORTER_OTLP_PROTOCOL");
      expect({ words, stderr: quiet.stderr }).toEqual({
        words,
        stderr: `tvix-store: ${lines.at(-1).msg}\n`,
      });
    };
    const atOnce = pLimit(3);
    await Promise.all(Object.entries(failing).map((one) => atOnce(check, one)));
  });

  it("are taken by commands that cannot fail", async () => {
    const [good, bad] = ["good", "bad"].map((name) => join(folder.path, `${name}.toml`));
    writeFileSync(good!, "quiet = true\n");
    writeFileSync(bad!, "quiet = 1\n");
    for (const [words, args] of Object.entries(working)) {
      const [plain, all, refused] = await Promise.all([
        tvixStore([words, ...args]),
        tvixStore([
          ...[words, ...args, `--config=${good}`],
          ...["--log-level=error", "--log-format=json", "--quiet"],
        ]),
        tvixStore([words, ...args, `--config=${bad}`]),
      ]);
      expect(plain).toMatchObject({ status: 0, stderr: "" });
      expect(all).toEqual(plain);
      expect(refused).toMatchObject({ status: 1, stdout: "" });
      expect(refused.stderr).toContain(`Cannot use config file "${bad}"`);
    }
  });
});

/**
 * The inventory: each option of each command is passed to it by a test of the real binary. What counts is a test file that
 * names the command and the option as words of an argument list; lists of mistakes are in none.
 */
describe("every option", () => {
  /** Functions of the harness, and words that they pass. */
  const passes: Readonly<Record<string, readonly string[]>> = {
    startDaemon: ["daemon"],
    startNarBridge: ["nar-bridge"],
    startMount: ["mount"],
    embeddedIn: ["--blob-service-addr", "--directory-service-addr", "--path-info-service-addr"],
    throughDaemon: ["--blob-service-addr", "--directory-service-addr", "--path-info-service-addr"],
  };

  /** Returns the words in a source that look like those of an argument list, each quoted at least in front. */
  function wordsIn(source: string): Set<string> {
    const quoted = [...source.matchAll(/["'`](-{0,2}[a-z][a-z-]*)(?=["'`= ])/g)];
    const called = [...source.matchAll(/\b([a-zA-Z]+)\(/g)].flatMap(
      ([, name]) => passes[name!] ?? [],
    );
    return new Set([...quoted.map(([, word]) => word!), ...called]);
  }

  it("of every command is passed to it by a test", () => {
    const folder = import.meta.dirname;
    const tests = readdirSync(folder)
      .filter((name) => name.endsWith(".test.ts") && name !== "every-command.test.ts")
      .map((name) => wordsIn(readFileSync(join(folder, name), "utf8")));
    const tried = [...COMMON, "--otlp", "--help"]; // on every command, by the tests above
    const missing = leafHelps().flatMap(([words, help]) => {
      const running = tests.filter((test) => words.split(" ").every((word) => test.has(word)));
      return optionsIn(help)
        .filter((option) => !tried.includes(option) && !running.some((test) => test.has(option)))
        .map((option) => `tvix-store ${words} ${option}`);
    });
    expect(missing).toEqual([]);
  });
});
