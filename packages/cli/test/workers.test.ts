import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { get } from "node:http";
import { text } from "node:stream/consumers";
import { openBlobService, putBlob } from "@tvix/castore";
import { seededBytes } from "@tvix/conformance";
import { describe, expect, it } from "vitest";
import { embeddedIn, startDaemon, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

const ABSENT = `/${"0".repeat(32)}.narinfo`;

/** Asks over a connection of its own. */
async function ask(address: string, path: string): Promise<string> {
  const [host, port] = address.split(":");
  const request = get({ host, port, path, agent: false });
  const [response] = await once(request, "response");
  return await text(response);
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

describe("tvix-store daemon --workers", () => {
  it("serves one store on one address by several processes, and replaces one that ends", async () => {
    using folder = temporaryFolder();
    const socket = `${folder.path}/sock`;
    mkdirSync(`${folder.path}/state`);
    const env = { STATE_DIRECTORY: `${folder.path}/state` };
    const args = ["--workers=2", "--listen-address=127.0.0.1:0", `--listen-address=${socket}`];
    await using daemon = await startDaemon(args, { env });
    const address = daemon.addresses.find((address) => address.startsWith("127"))!;
    await using blobs = await openBlobService(`grpc+unix://${socket}`);
    const contents = seededBytes("shared", 300_000);
    const digest = await putBlob(blobs, contents);
    for (let i = 0; i < 8; i++) await ask(address, ABSENT);
    const pids = () => new Set(daemon.log.filter(({ msg }) => msg === "request").map((l) => l.pid));
    await expect.poll(() => pids().size).toBe(2);
    expect(pids()).not.toContain(daemon.process.pid);
    const metrics = await ask(address, "/metrics");
    const requests = 'tvix_http_duration_seconds_count{route="narinfo",code="404"} 8';
    expect(metrics.split("\n")).toContain(requests);
    expect(metrics).toMatch(/^tvix_build_info\{.*\} 1$/m);

    const [first] = pids();
    process.kill(first as number, "SIGKILL");
    const replaced = () => daemon.log.filter(({ msg }) => `${msg}`.includes("ended with SIGKILL"));
    await expect.poll(replaced, { timeout: 10_000 }).toHaveLength(1);
    for (let i = 0; i < 8; i++) await ask(address, ABSENT);
    await using again = await openBlobService(`grpc+unix://${socket}`);
    expect(await again.has(digest)).toBe(true);
    await expect
      .poll(
        async () => {
          await ask(address, ABSENT);
          return pids().size;
        },
        { timeout: 20_000 },
      )
      .toBe(3);
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
    expect([...pids()].filter((pid) => isRunning(pid as number))).toEqual([]);
  });

  it.each([
    [
      "stores in memory",
      throughDaemon("memory://"),
      "found blobs, directories, path infos in memory",
    ],
    [
      "files of the cache in memory",
      ["--cache-object-addr=memory:///"],
      "found files of the cache",
    ],
  ])("refuses %s, once", async (_, args, found) => {
    using folder = temporaryFolder();
    const stores = args.length > 1 ? args : [...embeddedIn(folder.path), ...args];
    const options = ["--workers=3", `--listen-address=${folder.path}/sock`, ...stores];
    const { status, stderr } = await tvixStore(["daemon", ...options]);
    expect(status).toBe(1);
    expect(stderr.split("\n").filter((line) => line.includes("Cannot run 3 workers"))).toEqual([
      expect.stringContaining(found),
    ]);
  });
});
