import { execFileSync } from "node:child_process";
import { symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { embeddedIn, startDaemon, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

const COMMAND = fileURLToPath(new URL("../bin/tvix-store.cjs", import.meta.url));

/** Says how it was started, in place of Node. */
const NODE = '#!/bin/sh\nprintf "%s\\n" "$MALLOC_ARENA_MAX" "$MALLOC_MMAP_THRESHOLD_" "$@"\n';

/** Tells at its end which of two modules a process has loaded: the first takes 13 ms, the second 20 and more, and 17 MB. */
const PROBE = `process.on("exit", () => {
  const has = (name) => process.moduleLoadList.some((module) => module.includes(name));
  process._rawDebug("http2: " + has("http2/core") + ", undici: " + has("undici"));
});`;

function start(program: string, env: Record<string, string>, ...args: string[]): string[] {
  using folder = temporaryFolder();
  writeFileSync(join(folder.path, "node"), NODE, { mode: 0o755 });
  const output = execFileSync(program, args, { env: { PATH: folder.path, ...env } });
  return output.toString("latin1").split("\n").slice(0, -1);
}

describe("the command", () => {
  it("starts Node with options that bound its memory, and its arguments as they are", () => {
    const started = start(COMMAND, {}, "ls", "a  b", "", "*", "$HOME");
    const options = ["1", "262144", "--max-semi-space-size=1", COMMAND];
    expect(started).toEqual([...options, "ls", "a  b", "", "*", "$HOME"]);
  });

  it("leaves the options that the environment has, unless they are empty", () => {
    const started = start(COMMAND, { MALLOC_ARENA_MAX: "3", MALLOC_MMAP_THRESHOLD_: "" });
    expect(started.slice(0, 2)).toEqual(["3", "262144"]);
  });

  it("starts by a symlink, with nothing else in PATH", () => {
    using folder = temporaryFolder();
    const link = join(folder.path, "tvix-store");
    symlinkSync(COMMAND, link);
    const started = start(link, {}, "--version");
    expect(started.slice(-2)).toEqual([link, "--version"]);
  });

  it("imports a file at a daemon without loading the HTTP client of Node.js", async () => {
    using folder = temporaryFolder();
    const [file, probe] = [join(folder.path, "file"), join(folder.path, "probe.cjs")];
    writeFileSync(file, "hello");
    writeFileSync(probe, PROBE);
    await using daemon = await startDaemon(["-l", "127.0.0.1:0", ...embeddedIn(folder.path)]);
    const services = throughDaemon(`grpc+http://${daemon.addresses[0]}`);
    const env = { NODE_OPTIONS: `--require ${probe}` };
    const { status, stderr } = await tvixStore(["import", ...services, file], { env });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "http2: true, undici: false\n" });
  });
});
