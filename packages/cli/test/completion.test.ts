import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { MAIN, temporaryFolder, tvixStore } from "./harness.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());

/** Returns the environment of a shell that has `tvix-store` on its PATH. */
function environment(): NodeJS.ProcessEnv {
  const command = join(folder.path, "tvix-store");
  writeFileSync(command, `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`);
  chmodSync(command, 0o755);
  writeFileSync(join(folder.path, "a file"), "");
  return { ...process.env, HOME: folder.path, PATH: `${folder.path}:${process.env.PATH}` };
}

function isMissing(program: string): boolean {
  return spawnSync(program, ["-c", "true"]).error !== undefined;
}

/** Words that are typed, and what the last of them can become. */
const LINES: readonly (readonly [words: readonly string[], candidates: readonly string[]])[] = [
  [["im"], ["import"]],
  [["token", "c"], ["create"]],
  [["config", "show", "im"], ["import"]],
  [["config", "show", "token", "cr"], ["create"]],
  [["import", "--log-f"], ["--log-format"]],
  [["import", "--log-level", "w"], ["warn"]],
  [["daemon", "--auth-file", "a"], ["a file"]],
  [["cat", "a"], ["a file"]],
  [
    ["completion", ""],
    ["bash", "fish", "zsh"],
  ],
];

const noBash = isMissing("bash") ? " (missing: bash)" : "";

describe.skipIf(noBash)(`completion in bash${noBash}`, () => {
  it("completes commands, options, their values and files", () => {
    const script = `source <(tvix-store completion bash)
      try() { COMP_WORDS=(tvix-store "$@"); COMP_CWORD=$#; _tvix_store; printf '%s|' "\${COMPREPLY[@]}"; echo; }
      ${LINES.map(([words]) => `try ${words.map((word) => `'${word}'`).join(" ")}`).join("\n")}
      try import --log-level = d`;
    const options = { cwd: folder.path, env: environment(), encoding: "utf8" } as const;
    const found = execFileSync("bash", ["-c", script], options).trim().split("\n");
    const expected = [...LINES.map(([, candidates]) => candidates), ["debug"]];
    expect(found.map((line) => line.split("|").slice(0, -1).sort())).toEqual(expected);
  });
});

const noFish = isMissing("fish") ? " (missing: fish)" : "";

describe.skipIf(noFish)(`completion in fish${noFish}`, () => {
  it("completes commands, options, their values and files", () => {
    const lines = LINES.map(([words]) =>
      words.map((word) => word.replaceAll(" ", "\\ ")).join(" "),
    );
    const script = `tvix-store completion fish | source
      ${lines.map((line) => `complete -C '${`tvix-store ${line}`.replaceAll("\\", "\\\\")}'; echo .`).join("\n")}`;
    const options = { cwd: folder.path, env: environment(), encoding: "utf8" } as const;
    const found = execFileSync("fish", ["-c", script], options).trim().split(/^\.$/m).slice(0, -1);
    const candidates = found.map((text) =>
      text
        .trim()
        .split("\n")
        .map((line) => line.split("\t")[0]!.replace("\\", ""))
        .sort(),
    );
    expect(candidates).toEqual(LINES.map(([, expected]) => expected));
  });
});

it("a script is printed for zsh, and no other shell", async () => {
  expect((await tvixStore(["completion", "zsh"])).stdout).toMatch(/^#compdef tvix-store\n/);
  const other = await tvixStore(["completion", "tcsh"]);
  expect(other).toMatchObject({ status: 1, stdout: "" });
  expect(other.stderr).toContain("Allowed choices are bash, zsh, fish");
});

it("version tells what it runs on", async () => {
  const { status, stdout } = await tvixStore(["version", "--json"]);
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    version: (await tvixStore(["--version"])).stdout.trim(),
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    blake3: expect.stringMatching(/^(native|portable)$/),
    features: expect.any(Array),
  });
  expect((await tvixStore(["version"])).stdout).toMatch(/^version +\S+\nnode /);
});
