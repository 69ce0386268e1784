import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe } from "vitest";
import { findProgram } from "./find-program.ts";

/**
 * Describes tests that need programs, and skips them where one is missing, which the title then says.
 * The tests get the paths of the programs in the order of their names.
 */
export function describeWithTools(
  title: string,
  names: readonly string[],
  tests: (...paths: string[]) => void,
): void {
  const found = names.map(findProgram);
  const missing = names.filter((_, i) => found[i] === undefined);
  const name = missing.length === 0 ? title : `${title} (missing: ${missing.join(", ")})`;
  describe.skipIf(missing.length > 0)(name, () => tests(...found.map((path) => path ?? "")));
}

/** A program that serves until it is disposed of. */
export interface RunningServer extends AsyncDisposable {
  /** Where it listens, on 127.0.0.1. */
  readonly port: number;
  /** The folder of its data, which goes with it. */
  readonly data: string;
}

/**
 * Starts a server of the tests, which takes its port and the folder for its data from `PORT` and `DATA`, and waits
 * until it takes connections.
 *
 * @param launcher path of the program
 * @param options.inMemory has it keep its data in memory. Default: false
 */
export async function startServer(
  launcher: string,
  { inMemory = false }: { inMemory?: boolean } = {},
): Promise<RunningServer> {
  const data = mkdtempSync(join(tmpdir(), "tvix-server-"));
  const port = await freePort();
  const env = { ...process.env, PORT: String(port), DATA: inMemory ? "" : data };
  const child = spawn(launcher, [], { env, stdio: "ignore" });
  const ended = once(child, "close");
  const server = {
    port,
    data,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await ended;
      rmSync(data, { recursive: true, force: true });
    },
  };
  while (!(await accepts(port))) {
    if (child.exitCode !== null || child.signalCode !== null) {
      await server[Symbol.asyncDispose]();
      throw new Error(`Cannot start "${launcher}": it ended with ${child.exitCode}`);
    }
    await sleep(50);
  }
  return server;
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false; // not yet
  } finally {
    socket.destroy();
  }
}
