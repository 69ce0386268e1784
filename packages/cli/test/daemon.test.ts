import { existsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openBlobService, putBlob } from "@tvix/castore";
import { seededBytes } from "@tvix/conformance";
import { BlobService } from "@tvix/proto/castore";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openConnectChannel } from "./connect-client.ts";
import { embeddedIn, startDaemon, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

const MEMORY = throughDaemon("memory://");

let folder: ReturnType<typeof temporaryFolder>;
let address: string;
beforeEach(() => {
  folder = temporaryFolder();
  address = join(folder.path, "sock");
});
afterEach(() => folder[Symbol.dispose]());

describe("tvix-store daemon", () => {
  it("keeps its stores in the state folder unless told otherwise", async () => {
    const env = { STATE_DIRECTORY: `${folder.path}/state folder` };
    writeFileSync(join(folder.path, "file"), "contents");
    {
      await using _daemon = await startDaemon([`--listen-address=${address}`], { env });
      const args = [
        "import",
        join(folder.path, "file"),
        ...throughDaemon(`grpc+unix://${address}`),
      ];
      expect(await tvixStore(args)).toMatchObject({ status: 0, stderr: "" });
    }
    for (const name of ["blobs/packs", "directories.sqlite", "path-infos.sqlite"]) {
      expect(existsSync(join(env.STATE_DIRECTORY, name))).toBe(true);
    }
  });

  it("listens on several addresses, on the command line or in the environment", async () => {
    await using daemon = await startDaemon([
      ...[address, "localhost:0", "[::1]:0"].map((address) => `--listen-address=${address}`),
      ...MEMORY,
    ]);
    expect(daemon.addresses).toContain(address);
    expect(daemon.addresses.filter((address) => address.startsWith("127.0.0.1:"))).toHaveLength(1);
    expect(statSync(address).isSocket()).toBe(true);
    for (const address of daemon.addresses) {
      const url = address.startsWith("/") ? `grpc+unix://${address}` : `grpc+http://${address}`;
      await using blobService = await openBlobService(url);
      await putBlob(blobService, Buffer.from("x"));
    }
    const env = { LISTEN_ADDRESS: join(folder.path, "other") };
    await using other = await startDaemon(MEMORY, { env });
    expect(other.addresses).toEqual([env.LISTEN_ADDRESS]);
  });

  it("goes on with a connection on which many reads were ended early", async () => {
    await using _daemon = await startDaemon([`--listen-address=${address}`, ...MEMORY]);
    await using blobService = await openBlobService(`grpc+unix://${address}`);
    const digest = await putBlob(blobService, seededBytes("read in part", 6_000_000));
    for (let i = 0; i < 120; i++) {
      for await (const _ of (await blobService.read(digest))!) break;
    }
    expect(await blobService.has(digest)).toBe(true);
  });

  it("warns when anybody can reach it, and only then", async () => {
    const warnings = async (address: string) => {
      await using daemon = await startDaemon([`--listen-address=${address}`, ...MEMORY]);
      return daemon.log.filter(({ level }) => level === 40).map(({ address }) => address);
    };
    expect(await warnings("0.0.0.0:0")).toEqual([expect.stringMatching(/^0\.0\.0\.0:\d+$/)]);
    expect(await warnings("localhost:0")).toEqual([]);
    expect(await warnings(address)).toEqual([]);
  });

  it("lets an upload finish after SIGTERM, then ends with status 0", async () => {
    await using daemon = await startDaemon([
      `--listen-address=${address}`,
      ...embeddedIn(folder.path),
    ]);
    using channel = openConnectChannel(address);
    const client = channel.clientOf(BlobService);
    const response = await client.put(
      (async function* () {
        yield { data: Buffer.from("before ") };
        // The client asks for more before the daemon has seen the call, without which it would end at once.
        await new Promise((resolve) => setTimeout(resolve, 300));
        daemon.process.kill("SIGTERM");
        while (!daemon.log.some(({ msg }) => `${msg}`.startsWith("shutting down"))) {
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        yield { data: Buffer.from("after") };
      })(),
    );
    expect(response.digest.length).toBe(32);
    expect(await daemon.exit).toBe(0);
    expect(existsSync(address)).toBe(false);
    await using blobService = await openBlobService(`pack://${folder.path}/blobs`);
    await using writer = blobService.openWriter();
    await writer.write(Buffer.from("before after"));
    expect(Buffer.from((await writer.close()).bytes).equals(response.digest)).toBe(true);
  });

  it.each([
    ["at once at a second signal", []],
    ["when the time for a shutdown is over", ["--shutdown-timeout=200ms"]],
  ])("ends %s, and leaves nothing of the upload", async (_, args) => {
    await using daemon = await startDaemon([
      `--listen-address=${address}`,
      ...args,
      ...embeddedIn(folder.path),
    ]);
    using channel = openConnectChannel(address);
    const client = channel.clientOf(BlobService);
    const putting = client.put(
      (async function* () {
        yield { data: Buffer.from("never ends") };
        // As above: a call that the daemon has not seen is not in flight.
        await new Promise((resolve) => setTimeout(resolve, 300));
        daemon.process.kill("SIGINT");
        while (!daemon.log.some(({ msg }) => `${msg}`.startsWith("shutting down"))) {
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        if (args.length === 0) daemon.process.kill("SIGINT");
        await new Promise(() => undefined);
      })(),
    );
    await expect(putting).rejects.toThrow();
    expect(await daemon.exit).toBe(0);
    const cut = daemon.log.filter(({ msg }) => `${msg}`.startsWith("calls in flight cut"));
    expect(cut).toHaveLength(args.length);
  });

  it("refuses an address that another daemon listens on", async () => {
    await using _daemon = await startDaemon([`--listen-address=${address}`, ...MEMORY]);
    const outcome = await tvixStore(["daemon", `--listen-address=${address}`, ...MEMORY]);
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toContain("already listens");
  });

  it("names the program that has its port", async () => {
    await using daemon = await startDaemon(["--listen-address=127.0.0.1:0", ...MEMORY]);
    const taken = `--listen-address=${daemon.addresses[0]}`;
    const { stderr, status } = await tvixStore(["daemon", taken, ...MEMORY]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/: already in use .*; stop process \d+ \(main\), or choose/);
  });

  it("refuses stores that it cannot open, and says which", async () => {
    writeFileSync(join(folder.path, "directories.sqlite"), "no database ".repeat(500));
    const args = [`--listen-address=${address}`, ...embeddedIn(folder.path)];
    const outcome = await tvixStore(["daemon", ...args]);
    expect(outcome).toMatchObject({ status: 1, stdout: "" });
    expect(outcome.stderr).toContain("directories.sqlite");
    expect(existsSync(address)).toBe(false);
  });
});
