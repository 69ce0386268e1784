import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { text } from "node:stream/consumers";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { temporaryFolder } from "../temporary-folder.ts";
import { SCENARIOS, type Scenario } from "./scenarios.ts";

const PRELOAD = new URL("./failpoints.ts", import.meta.url).href;
const PROGRAM = fileURLToPath(new URL("./run-scenario.ts", import.meta.url));

/** The files that a process killed at a failpoint leaves. */
interface Remains {
  readonly failpoint: string;
  /** A copy of the folder of its store. */
  readonly folder: string;
  /** How many steps it had reported as done. */
  readonly done: number;
}

/**
 * Runs a scenario, and gives what a process would leave that is killed at each of its failpoints. A process that is
 * stopped has done what one that is killed there has done, and the kernel shows the same of its files.
 */
async function* remainsOf(name: string, folder: string): AsyncGenerator<Remains> {
  const store = join(folder, "store");
  mkdirSync(store);
  const child = spawn(process.execPath, ["--import", PRELOAD, PROGRAM, name, store], {
    env: { ...process.env, FAILPOINTS_FOLDER: store },
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  const [, stdout, stderr, goOn] = child.stdio as unknown as [null, Readable, Readable, Writable];
  const ended = Promise.all([once(child, "close"), text(stderr)]);
  try {
    let done = 0;
    for await (const line of createInterface(stdout)) {
      if (line === "done") {
        done += 1;
        continue;
      }
      await stop(child.pid!);
      const copy = join(folder, "copy");
      cpSync(store, copy, { recursive: true, preserveTimestamps: true });
      child.kill("SIGCONT");
      yield { failpoint: line.replace("failpoint ", ""), folder: copy, done };
      rmSync(copy, { recursive: true });
      goOn.write("\n");
    }
    const [[status], messages] = await ended;
    if (status !== 0) throw new Error(`ended with ${status}: ${messages}`);
    yield { failpoint: "", folder: store, done };
  } finally {
    child.kill("SIGKILL");
    await ended;
  }
}

/** Stops all threads of a process. */
async function stop(pid: number): Promise<void> {
  const isStopped = (thread: string) =>
    /^\d+ \(.*\) T/.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8"));
  process.kill(pid, "SIGSTOP");
  while (!readdirSync(`/proc/${pid}/task`).every(isStopped)) await setImmediate();
}

/** Opens the store that a killed process left, and checks that its promises hold and that it accepts writes. */
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

/** Expects a sound store after a kill at each failpoint. Returns the names of all failpoints. */
async function expectSoundEverywhere(name: string): Promise<Set<string>> {
  using folder = temporaryFolder();
  const hit = new Set<string>();
  for await (const { failpoint, folder: store, done } of remainsOf(name, folder.path)) {
    if (failpoint !== "") hit.add(failpoint);
    try {
      await expectSound(SCENARIOS[name]!, store, done);
    } catch (cause) {
      throw new Error(`killed ${failpoint || "after its end"}`, { cause });
    }
  }
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

/** The file operations with which a file object store stores an object. */
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
      "mkdir blobs",
      "fsyncSync blobs",
      "exec blobs/index.sqlite",
      "mkdir blobs/packs",
      "writevSync blobs/packs/*.pack",
      "fdatasync blobs/packs/*.pack",
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
  it.each(Object.keys(SCENARIOS))("leaves it sound: %s", async (name) => {
    const { before, after, within } = killedAround(await expectSoundEverywhere(name));
    const [changes, writes] = CHANGES[name]!;
    expect([...before]).toEqual(expect.arrayContaining(changes));
    expect([...after]).toEqual(expect.arrayContaining(changes));
    expect([...within]).toEqual(writes);
  });
});
