import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { countPathInfos, embeddedIn, MAIN, temporaryFolder } from "./harness.ts";
import { fillPipe, openPipe } from "./pipe.ts";

let folder: ReturnType<typeof temporaryFolder>;
let args: string[];
beforeEach(() => {
  folder = temporaryFolder();
  const files = Array.from({ length: 40 }, (_, i) => join(folder.path, `${i}`));
  for (const file of files) writeFileSync(file, file);
  args = ["import", ...files, ...embeddedIn(store())];
});
afterEach(() => folder[Symbol.dispose]());

const store = () => join(folder.path, "store");

/** Runs a command with a file descriptor as stdout; returns the exit status and stderr. */
async function runOn(stdout: number, args: readonly string[]) {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", stdout, "pipe"] });
  closeSync(stdout);
  const [stderr, [status]] = await Promise.all([text(child.stderr!), once(child, "close")]);
  return { status, stderr };
}

/** Returns the write end of a pipe whose read end is closed. */
function closedPipe(): number {
  const { readEnd, writeEnd } = openPipe(join(folder.path, "pipe"));
  closeSync(readEnd);
  return writeEnd;
}

const NO_SPACE = "tvix-store: Cannot write to stdout: no space left on device\n";

describe("a stdout", () => {
  it("that nobody reads any more ends an import quietly, as SIGPIPE would", async () => {
    expect(await runOn(closedPipe(), args)).toEqual({ status: 141, stderr: "" });
    expect(await countPathInfos(store())).toBeLessThan(40); // nobody hears of more
  });

  it("that waits for its reader keeps an import until a signal ends it", async () => {
    const { readEnd, writeEnd } = openPipe(join(folder.path, "pipe"));
    fillPipe(join(folder.path, "pipe"));
    const child = spawn(process.execPath, [MAIN, ...args], {
      stdio: ["ignore", writeEnd, "pipe"],
    });
    closeSync(writeEnd);
    while (!(existsSync(store()) && (await countPathInfos(store())) > 0)) await sleep(50);
    child.kill("SIGTERM");
    const [stderr, [status]] = await Promise.all([text(child.stderr!), once(child, "close")]);
    expect({ status, stderr }).toEqual({ status: 143, stderr: "tvix-store: Ended by SIGTERM\n" });
    expect(await countPathInfos(store())).toBeLessThan(40);
    closeSync(readEnd);
  });

  it("that is full ends an import with one line", async () => {
    const full = openSync("/dev/full", "w");
    expect(await runOn(full, args)).toEqual({ status: 1, stderr: NO_SPACE });
  });

  it.each([["--help"], ["--version"], ["import --help"]])(
    "that takes nothing is told of by %s as well",
    async (line) => {
      const given = line.split(" ");
      const full = openSync("/dev/full", "w");
      expect(await runOn(full, given)).toEqual({ status: 1, stderr: NO_SPACE });
      expect(await runOn(closedPipe(), given)).toEqual({ status: 141, stderr: "" });
    },
  );
});

describe("a stderr", () => {
  it.each([
    ["that is full", () => openSync("/dev/full", "w")],
    ["that nobody reads any more", closedPipe],
  ])("%s changes nothing but that errors are not told", async (_, open) => {
    const run = async (args: readonly string[]) => {
      const stderr = open();
      const child = spawn(process.execPath, [MAIN, ...args], { stdio: ["ignore", "pipe", stderr] });
      closeSync(stderr);
      const [stdout, [status]] = await Promise.all([text(child.stdout!), once(child, "close")]);
      return { status, lines: stdout.split("\n").length - 1 };
    };
    expect(await run([...args, join(folder.path, "none")])).toEqual({ status: 1, lines: 40 });
  });
});
