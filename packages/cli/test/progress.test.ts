import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describeWithTools } from "@tvix/conformance";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { countPathInfos, embeddedIn, MAIN, temporaryFolder, tvixStore } from "./harness.ts";
import { Terminal } from "./terminal.ts";

const folder = temporaryFolder();
const small = join(folder.path, "small");
let count = 0;
const newStore = () => join(folder.path, `store${count++}`);

beforeAll(() => writeFileSync(small, "contents"));
afterAll(() => folder[Symbol.dispose]());

describe("the progress of an import", () => {
  it("is lines in a log, if asked for, and nothing otherwise", async () => {
    const args = ["import", small, ...embeddedIn(newStore())];
    const plain = await tvixStore([...args, "--progress=plain"]);
    expect(plain.stderr).toMatch(/^tvix-store: .*\/small: 8 B, 8 B new, \d\.\d s\n$/);
    expect(plain.stdout).toMatch(/^\/nix\/store\/\w+-small\n$/);
    const quiet = ["--no-progress", "--progress=none", "--quiet"];
    const outcomes = await Promise.all(quiet.map((option) => tvixStore([...args, option])));
    expect(outcomes.map(({ stderr }) => stderr)).toEqual(["", "", ""]);
  });

  it("is shown in the same ways by commands that read", async () => {
    const store = embeddedIn(newStore());
    const { stdout } = await tvixStore(["import", small, ...store]);
    const path = stdout.trim();
    const [restored, used, ...silent] = await Promise.all([
      tvixStore(["restore", path, join(folder.path, "a"), "--progress=plain", ...store]),
      tvixStore(["du", path, "--progress=plain", ...store]),
      tvixStore(["restore", path, join(folder.path, "b"), "--no-progress", ...store]),
      tvixStore(["du", path, "--no-progress", ...store]),
      tvixStore(["du", path, "--progress=plain", "--quiet", ...store]),
    ]);
    for (const { stderr } of [restored, used]) {
      expect(stderr).toMatch(/^tvix-store: \/nix\/store\/\w+-small: 8 B, \d\.\d s\n$/);
    }
    for (const { stderr } of silent) expect(stderr).toBe("");
  });

  it("ends with Ctrl-C, when what is safe was printed", async () => {
    const endless = join(folder.path, "endless");
    writeFileSync(endless, "");
    truncateSync(endless, 2 ** 40);
    const store = newStore();
    const stop = new AbortController();
    const ended = tvixStore(["import", endless, small, ...embeddedIn(store)], {
      interrupt: stop.signal,
    });
    while ((await countPathInfos(store)) === 0) await sleep(50);
    stop.abort();
    expect(await ended).toEqual({
      status: 130,
      stdout: expect.stringMatching(/^\/nix\/store\/\w+-small\n$/),
      stderr: "tvix-store: Ended by SIGINT\n",
    });
  });
});

describeWithTools("the progress of an import on a terminal", ["script"], (script) => {
  it("is a line that changes, and a line for each path that is done", async () => {
    const args = ["import", small, ...embeddedIn(newStore())];
    const command = `${process.execPath} ${MAIN} ${args.join(" ")} > ${folder.path}/out; echo; printf end`;
    await using terminal = new Terminal(script, `sh -c '${command}'`, process.env);
    const shown = await terminal.prompt("end");
    expect(shown).toMatch(/small: 8 B, 8 B new, \d\.\d s\r\n/);
  });

  it("is lines on a terminal that has no width", async () => {
    const args = ["import", small, ...embeddedIn(newStore())];
    const command = `stty cols 0; ${process.execPath} ${MAIN} ${args.join(" ")} > ${folder.path}/out; printf end`;
    await using terminal = new Terminal(script, `sh -c '${command}'`, process.env);
    expect(await terminal.prompt("end")).toMatch(/small: 8 B, 8 B new, \d\.\d s\r\n/);
  });
});
