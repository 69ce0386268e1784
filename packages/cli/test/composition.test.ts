import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type B3Digest,
  Directory,
  type DirectoryService,
  encodeDirectory,
  openBlobService,
  openDirectoryService,
  pathComponent,
  putBlob,
} from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { startDaemon, temporaryFolder, tvixStore } from "./harness.ts";

/** The result of every call of a directory service. */
async function useDirectories(service: DirectoryService): Promise<unknown> {
  const leaf = Directory.from([]);
  const { digest } = encodeDirectory(leaf);
  const node = { type: "directory", digest, size: leaf.size } as const;
  const root = Directory.from([{ name: pathComponent("inner"), node }]);
  const read = (of: B3Digest) => Array.fromAsync(service.getRecursive(of));
  const before = [await service.get(digest), await read(digest)];
  await using refused = service.openPutter();
  const refusal = await refused.put(root).then(
    () => refused.close().catch(({ code }) => code),
    ({ code }) => code,
  );
  await using putter = service.openPutter();
  await putter.put(leaf);
  await putter.put(root);
  const stored = await putter.close();
  expect(stored).toEqual(encodeDirectory(root).digest);
  return { before, refusal, stored, after: [await service.get(digest), await read(stored)] };
}

describe("--store-composition", () => {
  it.each([
    ["a file", "--store-composition"],
    ["a pipe", "--experimental-store-composition"],
  ])("serves the services that %s describes, by %s", async (kind, flag) => {
    using folder = temporaryFolder();
    const file = join(folder.path, "stores.toml");
    if (kind === "a pipe") execFileSync("mkfifo", [file]);
    const written = writeFile(
      file,
      `
          [[upstreams]]
          base_url = "http://127.0.0.1:9"
          [blobservices.root]
          type = "combined"
          near = "memory://"
          far = "packs"
          [blobservices.packs]
          type = "pack"
          path = "${folder.path}/blobs"
          [directoryservices.default]
          type = "cache"
          near = "memory1"
          far = "memory2"
          [directoryservices.memory1]
          type = "memory"
          [directoryservices.memory2]
          type = "memory"
          [pathinfoservices.default]
          type = "sqlite"
          path = "${folder.path}/path-infos.sqlite"
        `,
    );
    if (kind === "a file") await written;
    const socket = join(folder.path, "sock");
    await using daemon = await startDaemon([`--listen-address=${socket}`, flag, file]);
    await using client = await openBlobService(`grpc+unix://${socket}`);
    const digest = await putBlob(client, Buffer.from("contents"));
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
    await using packs = await openBlobService(`pack://${folder.path}/blobs`);
    expect(await packs.has(digest)).toBe(true);
  });

  it("serves with a cache in a file what it serves with the same cache as an address", async () => {
    using folder = temporaryFolder();
    const file = join(folder.path, "stores.toml");
    writeFileSync(
      file,
      `
        blobservices.default.type = "memory"
        pathinfoservices.default.type = "memory"
        [directoryservices.memory1]
        type = "memory"
        [directoryservices.memory2]
        type = "memory"
        [directoryservices.default]
        type = "cache"
        near = "memory1"
        far = "memory2"
      `,
    );
    const cache = "cache://?near=memory://&far=memory://";
    const outcomes: unknown[] = [];
    for (const [name, args] of Object.entries({
      address: [
        `--directory-service-addr=${cache}`,
        "--blob-service-addr=memory://",
        "--path-info-service-addr=memory://",
      ],
      file: ["--store-composition", file],
    })) {
      const socket = join(folder.path, name);
      await using daemon = await startDaemon([`--listen-address=${socket}`, ...args]);
      await using client = await openDirectoryService(`grpc+unix://${socket}`);
      outcomes.push(await useDirectories(client));
      daemon.process.kill("SIGTERM");
      expect(await daemon.exit).toBe(0);
    }
    expect(outcomes[0]).toEqual(outcomes[1]);
  });

  it("refuses a file that does not exist, and what is wrong in one", async () => {
    using folder = temporaryFolder();
    const file = join(folder.path, "stores.toml");
    const absent = await tvixStore(["import", "--store-composition", file, folder.path]);
    expect(absent.status).toBe(1);
    expect(absent.stderr).toBe(
      `tvix-store: Cannot read store composition "${file}": no such file or directory\n`,
    );
    writeFileSync(file, "[blobservices.default]\ntype = 'sqlite'");
    const wrong = await tvixStore(["import", "--store-composition", file, folder.path]);
    expect(wrong.status).toBe(1);
    expect(wrong.stderr).toMatch(/\[blobservices.default\].*found "sqlite"/);
  });

  it("goes with no address of a service", async () => {
    const args = ["--store-composition", "x", "--blob-service-addr", "memory://", "path"];
    const { status, stderr } = await tvixStore(["import", ...args]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/cannot be used with option '--blob-service-addr/);
  });
});
