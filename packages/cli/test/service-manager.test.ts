import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { get } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { findProgram } from "@tvix/conformance/find-program";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MAIN, NODE_OPTIONS, temporaryFolder, throughDaemon } from "./harness.ts";

/** Prints each datagram that comes to a unix socket as a line of JSON. */
const RECEIVER = `
import json, os, socket, sys
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1])
print("bound", flush=True)
while True:
    data, files, _, _ = socket.recv_fds(receiver, 4096, 4)
    for file in files:
        os.close(file)
    print(json.dumps(data.decode()), flush=True)
`;

const DAEMON = [process.execPath, ...NODE_OPTIONS, MAIN, "daemon", ...throughDaemon("memory://")];

/** How long a process may take to start. */
const WAIT = { timeout: 20_000 };

const PROGRAMS = ["systemd-socket-activate", "systemd-notify", "python3"];
const missing = PROGRAMS.filter((name) => findProgram(name) === undefined).join(", ");

let folder: ReturnType<typeof temporaryFolder>;
const running: ChildProcess[] = [];
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(async () => {
  for (const child of running.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGKILL");
    await once(child, "close");
  }
  folder[Symbol.dispose]();
});

function start(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const child = spawn(program, args, { env: { ...process.env, ...env } });
  running.push(child);
  const lines: string[] = [];
  createInterface(child.stdout).on("line", (line) => lines.push(line));
  const errors: string[] = [];
  createInterface(child.stderr).on("line", (line) => errors.push(line));
  return { child, lines, errors };
}

/** Asks a daemon at the path of a unix socket, or at a port, for what Nix asks first. */
async function cacheInfo(address: { socketPath: string } | { port: number }): Promise<string> {
  const request = get({ host: "127.0.0.1", path: "/nix-cache-info", agent: false, ...address });
  const [response] = await once(request, "response");
  return await text(response);
}

/** Returns a port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

describe.skipIf(missing !== "")(`under systemd${missing && ` (missing: ${missing})`}`, () => {
  it("serves the sockets that it is passed, and tells when it is ready, alive and stopping", async () => {
    const notify = join(folder.path, "notify");
    const manager = start("python3", ["-c", RECEIVER, notify]);
    await expect.poll(() => manager.lines, WAIT).toEqual(["bound"]);
    const socketPath = join(folder.path, "sock");
    const port = await freePort();
    const listen = [`-l127.0.0.1:${port}`, `-l${socketPath}`, "--fdname=web:local"];
    const variables = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "PATH", "HOME"].map((name) => `-E${name}`);
    const { child, errors } = start(
      "systemd-socket-activate",
      [...listen, ...variables, ...DAEMON, "--listen-address=sd-listen"],
      { NOTIFY_SOCKET: notify, WATCHDOG_USEC: "400000" },
    );
    await expect
      .poll(() => errors.filter((line) => line.startsWith("Listening")), WAIT)
      .toHaveLength(2);
    expect(await cacheInfo({ socketPath })).toContain("StoreDir: /nix/store");
    expect(await cacheInfo({ port })).toContain("StoreDir: /nix/store");
    const told = () => manager.lines.map((line) => (line === "bound" ? line : JSON.parse(line)));
    await expect.poll(told, WAIT).toContain("WATCHDOG=1");
    child.kill("SIGTERM");
    expect(await once(child, "close")).toEqual([0, null]);
    const ready = `READY=1\nSTATUS=listening on 127.0.0.1:${port}, sd-listen:local`;
    expect(told().filter((line) => !/^(BARRIER|WATCHDOG)=1$/.test(line))).toEqual([
      "bound",
      ready,
      "STOPPING=1\nSTATUS=waiting for calls in flight",
    ]);
    expect(existsSync(socketPath)).toBe(true); // it is systemd's
  });

  it("serves the connection on its stdin, and ends with it", async () => {
    const port = await freePort();
    const { child, errors } = start("systemd-socket-activate", [
      ...["--accept", "--inetd", `-l127.0.0.1:${port}`, "-EPATH", "-EHOME"],
      ...[...DAEMON, "--listen-address=inetd"],
    ]);
    await expect
      .poll(() => errors.filter((line) => line.startsWith("Listening")), WAIT)
      .toHaveLength(1);
    expect(await cacheInfo({ port })).toContain("StoreDir: /nix/store");
    await expect
      .poll(() => errors, WAIT)
      .toContainEqual(expect.stringMatching(/^Child \d+ died with code 0$/));
    child.kill("SIGTERM");
  });
});
