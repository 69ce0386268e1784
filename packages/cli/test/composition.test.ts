import { once } from "node:events";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
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
import { describeWithTools, seededBytes, startServer } from "@tvix/conformance";
import { RenderingNarCalculationService, StorePath } from "@tvix/store";
import { describe, expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import { addressesOf, startDaemon, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

/** Files of 0 to 40 KB in folders, and one of 20 MB. */
function writeSomeFiles(folder: string): void {
  const noise = seededBytes("composed", 20_000_000);
  for (let i = 0; i < 500; i++) {
    mkdirSync(join(folder, `${i % 20}/${i % 7}`), { recursive: true });
    const size = (i * 7919) % 40_000;
    writeFileSync(join(folder, `${i % 20}/${i % 7}/${i}`), noise.subarray(i * 100, i * 100 + size));
  }
  writeFileSync(join(folder, "large"), noise);
}

/** What every call of a directory service gives. */
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
  it.each(["--store-composition", "--experimental-store-composition"])(
    "serves the services that a file describes, by %s",
    async (flag) => {
      using folder = temporaryFolder();
      const file = join(folder.path, "stores.toml");
      writeFileSync(
        file,
        `
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
      const socket = join(folder.path, "sock");
      const daemon = await startDaemon([`--listen-address=${socket}`, flag, file]);
      await using client = await openBlobService(`grpc+unix://${socket}`);
      const digest = await putBlob(client, Buffer.from("contents"));
      daemon.process.kill("SIGTERM");
      expect(await daemon.exit).toBe(0);
      await using packs = await openBlobService(`pack://${folder.path}/blobs`);
      expect(await packs.has(digest)).toBe(true);
    },
  );

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
      `tvix-store: Cannot read store composition "${file}": the system answered ENOENT\n`,
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

describeWithTools("a disk in front of a bucket", ["run-s3"], (launcher) => {
  it("gives back everything when the disk is lost", { timeout: 120_000 }, async () => {
    using folder = temporaryFolder();
    await using server = await startServer(launcher);
    mkdirSync(join(server.data, "bucket"));
    const near = join(folder.path, "near");
    const far = (prefix: string) => `
      type = "objectstore"
      object_store_url = "s3://bucket/${prefix}"
      object_store_options.endpoint = "http://127.0.0.1:${server.port}"
      object_store_options.region = "us-east-1"
      object_store_options.force_path_style = true
    `;
    const file = join(folder.path, "stores.toml");
    writeFileSync(
      file,
      `
        [blobservices.default]
        type = "combined"
        near = "disk"
        far = "bucket"
        [blobservices.disk]
        type = "pack"
        path = "${near}/blobs"
        [blobservices.bucket]
        ${far("blobs")}
        [directoryservices.default]
        type = "cache"
        near = "disk"
        far = "bucket"
        [directoryservices.disk]
        type = "sqlite"
        path = "${near}/directories.sqlite"
        [directoryservices.bucket]
        ${far("directories")}
        [pathinfoservices.default]
        type = "sqlite"
        path = "${folder.path}/path-infos.sqlite"
      `,
    );
    const tree = join(folder.path, "tree");
    writeSomeFiles(tree);
    const socket = join(folder.path, "sock");
    const daemonArgs = [`--listen-address=${socket}`, "--store-composition", file];
    const env = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "testtest" };
    const client = throughDaemon(`grpc+unix://${socket}`);

    let storePath: StorePath;
    {
      await using daemon = await startDaemon(daemonArgs, { env });
      const { stdout, stderr } = await tvixStore(["import", tree, ...client]);
      expect(stderr).toBe("");
      storePath = StorePath.parseAbsolute(stdout.trim());
      daemon.process.kill("SIGTERM");
      await once(daemon.process, "close");
    }
    rmSync(near, { recursive: true });
    for (const _ of ["from the bucket", "from the disk, that was filled"]) {
      await using daemon = await startDaemon(daemonArgs, { env });
      await using services = await openServices(addressesOf(client));
      const pathInfo = (await services.pathInfoService.get(storePath.hashPart))!;
      const nar = await new RenderingNarCalculationService(services).calculateNar(pathInfo.node);
      expect(nar).toEqual({
        narSize: pathInfo.narSize,
        narSha256: Buffer.from(pathInfo.narSha256),
      });
      daemon.process.kill("SIGTERM");
      await daemon.exit;
      rmSync(join(server.data, "bucket"), { recursive: true, force: true });
      mkdirSync(join(server.data, "bucket"));
    }
  });
});
