import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { B3Digest, openBlobService } from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MAIN, temporaryFolder, throughDaemon } from "./harness.ts";
import { fillPipe, openPipe } from "./pipe.ts";
import { canMount, fillDisk, mountSmallDisk, unmount } from "./small-disk.ts";

/** Their lines are more than what waits for stderr, and fits into a pipe besides. */
const MANY_CALLS = 6000;

let folder: ReturnType<typeof temporaryFolder>;
let address: string;
beforeEach(() => {
  folder = temporaryFolder();
  address = join(folder.path, "sock");
});
afterEach(() => folder[Symbol.dispose]());

/** Starts a daemon whose stderr is a file descriptor, or a socket, and waits until it listens. */
async function startOn(stderr: number | "pipe"): Promise<ChildProcess & AsyncDisposable> {
  const args = ["daemon", `--listen-address=${address}`, ...throughDaemon("memory://")];
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ["ignore", "ignore", stderr],
    env: { ...process.env, LOG_LEVEL: "debug" }, // a line for each call
  });
  while (!(await accepts())) {
    if (child.exitCode !== null) throw new Error(`the daemon exited with ${child.exitCode}`);
    await sleep(20);
  }
  return Object.assign(child, {
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    },
  });
}

async function accepts(): Promise<boolean> {
  const socket = connect(address);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** Makes calls, each of which writes a line to the log. */
async function callTimes(count: number): Promise<void> {
  await using blobService = await openBlobService(`grpc+unix://${address}`);
  const digest = B3Digest.fromBytes(Buffer.alloc(32));
  for (let left = count; left > 0; left -= 50) {
    const calls = Array.from({ length: Math.min(left, 50) }, () => blobService.has(digest));
    expect(new Set(await Promise.all(calls))).toEqual(new Set([false]));
  }
}

async function endBySigterm(child: ChildProcess): Promise<void> {
  const exit = once(child, "exit");
  child.kill("SIGTERM");
  expect(await exit).toEqual([0, null]);
}

describe("a daemon answers every call, and ends at SIGTERM, where its log", () => {
  it("goes to a disk that is full", async () => {
    const stderr = openSync("/dev/full", "w");
    await using daemon = await startOn(stderr);
    closeSync(stderr);
    await callTimes(MANY_CALLS);
    await endBySigterm(daemon);
  });

  it("goes to a pipe that is full from the start", async () => {
    const { readEnd, writeEnd } = openPipe(join(folder.path, "pipe"));
    fillPipe(join(folder.path, "pipe"));
    await using daemon = await startOn(writeEnd);
    closeSync(writeEnd);
    await callTimes(100);
    await endBySigterm(daemon);
    closeSync(readEnd);
  });

  it("fills a pipe that nobody reads", async () => {
    const { readEnd, writeEnd } = openPipe(join(folder.path, "pipe"));
    await using daemon = await startOn(writeEnd);
    closeSync(writeEnd);
    await callTimes(MANY_CALLS);
    await endBySigterm(daemon);
    closeSync(readEnd);
  });

  it("fills a socket that nobody reads", async () => {
    await using daemon = await startOn("pipe"); // which Node makes of sockets
    await callTimes(MANY_CALLS);
    await endBySigterm(daemon);
  });

  it("goes to a pipe whose reader has gone", async () => {
    const { readEnd, writeEnd } = openPipe(join(folder.path, "pipe"));
    closeSync(readEnd);
    await using daemon = await startOn(writeEnd);
    closeSync(writeEnd);
    await callTimes(100);
    await endBySigterm(daemon);
  });

  it("is closed", async () => {
    const args = ["daemon", `--listen-address=${address}`, ...throughDaemon("memory://")];
    const child = spawn("sh", ["-c", 'exec "$0" "$@" 2>&-', process.execPath, MAIN, ...args]);
    while (!(await accepts())) await sleep(20);
    await callTimes(100);
    await endBySigterm(child);
  });
});

const title = `a full disk${canMount ? "" : " (missing: permission to mount one)"}`;

describe.skipIf(!canMount)(title, () => {
  let disk: string;
  beforeEach(() => {
    disk = join(folder.path, "disk");
    mkdirSync(disk);
    mountSmallDisk(disk, 1);
  });
  afterEach(() => unmount(disk));

  it("costs the lines that had no room, and the log says how many", async () => {
    const path = join(disk, "log");
    const stderr = openSync(path, "a");
    await using daemon = await startOn(stderr);
    closeSync(stderr);
    await callTimes(10);
    const ballast = fillDisk(disk);
    await callTimes(MANY_CALLS);
    rmSync(ballast);
    await callTimes(50);
    await endBySigterm(daemon);

    const entries: Record<string, unknown>[] = [];
    let cut = 0;
    for (const line of readFileSync(path, "utf8").trim().split("\n")) {
      try {
        entries.push(JSON.parse(line));
      } catch {
        cut += 1; // the one for which there was not enough room
      }
    }
    expect(cut).toBeLessThanOrEqual(1);
    const calls = entries.filter(({ msg }) => msg === "call").length;
    const lost = entries.reduce((sum, entry) => sum + Number(entry.lost ?? 0), 0);
    expect(lost).toBeGreaterThan(MANY_CALLS / 2);
    expect(calls + lost).toBe(10 + MANY_CALLS + 50);
    const last = entries.findLast(({ level }) => Number(level) >= 30);
    expect(last?.msg).toMatch(/^shutting down/);
  });
});
