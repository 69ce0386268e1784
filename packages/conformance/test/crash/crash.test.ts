import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "../temporary-folder.ts";
import { SCENARIOS, type Scenario } from "./scenarios.ts";

const PRELOAD = new URL("./failpoints.ts", import.meta.url).href;
const PROGRAM = fileURLToPath(new URL("./run-scenario.ts", import.meta.url));

/** How many processes run at the same time. */
const PARALLEL = 2;

/** How a process ended that was to be killed at a failpoint. */
interface Ending {
  /** The name of the failpoint; `undefined` if there were fewer of them. */
  readonly failpoint: string | undefined;
  /** How many steps it had reported as done. */
  readonly done: number;
}

async function runUntil(failpoint: number, name: string, folder: string): Promise<Ending> {
  const env = {
    ...process.env,
    FAILPOINTS_FOLDER: folder,
    FAILPOINT: String(failpoint),
  };
  const child = spawn(process.execPath, ["--import", PRELOAD, PROGRAM, name, folder], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr, [status, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close"),
  ]);
  if (status !== 0 && signal !== "SIGKILL") throw new Error(`ended with ${status}: ${stderr}`);
  const done = stdout.split("\n").length - 1;
  return { failpoint: signal === "SIGKILL" ? stderr : undefined, done };
}

/** Opens what a killed process has left, and checks that it is as promised and can be written to. */
async function expectSound(open: Scenario, folder: string, done: number) {
  await using store = await open(folder);
  for (const [i, step] of store.steps.entries()) {
    const isThere = await step.isThere();
    if (i < done) expect(isThere, `step ${i} of ${done} that were done`).toBe(true);
  }
  for (const step of store.steps) {
    await step.put();
    expect(await step.isThere()).toBe(true);
  }
}

/** Kills a process at its first failpoint, another at its second, and so on. Gives the names of all of them. */
async function killEverywhere(name: string): Promise<Set<string>> {
  const hit = new Set<string>();
  let next = 1;
  let finished = false;
  const run = async () => {
    while (!finished) {
      using folder = temporaryFolder();
      const failpoint = next++;
      const store = join(folder.path, "store");
      mkdirSync(store);
      const ending = await runUntil(failpoint, name, store);
      if (ending.failpoint === undefined) finished = true;
      else hit.add(ending.failpoint);
      try {
        await expectSound(SCENARIOS[name]!, store, ending.done);
      } catch (cause) {
        throw new Error(`killed ${ending.failpoint} (failpoint ${failpoint})`, { cause });
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, run));
  return hit;
}

/** The changes of a store that a process was killed before, after and within, from the names of failpoints. */
function killedAround(failpoints: Iterable<string>) {
  const found = { before: new Set<string>(), after: new Set<string>(), within: new Set<string>() };
  for (const name of failpoints) {
    const [, after, before, within] = /^(?:after (.*), before (.*)|within (.*))$/.exec(name)!;
    if (within !== undefined) found.within.add(within);
    if (after !== undefined) found.after.add(after);
    if (before !== undefined) found.before.add(before);
  }
  return found;
}

/** What a store of objects in files does below a folder to store one. */
const OBJECT = (root: string, folder: string) => [
  `mkdir ${root}/~uploads`,
  `appendFile ${root}/~uploads/*`,
  `datasync ${root}/~uploads/*`,
  `mkdir ${root}/${folder}/b3/*`,
  `sync ${root}/${folder}/b3`,
  `rename ${root}/${folder}/b3/*/*`,
  `sync ${root}/${folder}/b3/*`,
];

/** The changes by which each store keeps its promises, and the writes among them. */
const CHANGES: Readonly<Record<string, readonly [changes: string[], writes: string[]]>> = {
  packs: [
    [
      "mkdirSync blobs",
      "fsyncSync blobs",
      "exec blobs/index.sqlite",
      "mkdirSync blobs/packs",
      "writevSync blobs/packs/*.pack",
      "fdatasyncSync blobs/packs/*.pack",
      "fsyncSync blobs/packs",
    ],
    ["writevSync blobs/packs/*.pack"],
  ],
  "objects in files": [
    [...OBJECT("blobs", "chunks"), ...OBJECT("blobs", "blobs")],
    ["appendFile blobs/~uploads/*"],
  ],
  "directories in SQLite": [["fsyncSync .", "exec directories"], []],
  "directories in files": [
    [...OBJECT("directories", "dirs"), ...OBJECT("directories", "dirs-inner")],
    ["appendFile directories/~uploads/*"],
  ],
  "path infos in SQLite": [["fsyncSync .", "exec path-infos"], []],
};

describe("a process that is killed before, within and after each change of a store", () => {
  it.each(Object.keys(SCENARIOS))("leaves it sound: %s", { timeout: 300_000 }, async (name) => {
    const { before, after, within } = killedAround(await killEverywhere(name));
    const [changes, writes] = CHANGES[name]!;
    expect([...before]).toEqual(expect.arrayContaining(changes));
    expect([...after]).toEqual(expect.arrayContaining(changes));
    expect([...within]).toEqual(writes);
  });
});
