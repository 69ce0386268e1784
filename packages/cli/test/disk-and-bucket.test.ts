import { createCipheriv } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeWithTools, startServer } from "@tvix/conformance";
import { RenderingNarCalculationService, StorePath } from "@tvix/store";
import { expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import {
  addressesOf,
  type Daemon,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

/** How much memory a daemon may take at work, in bytes. */
const MOST_MEMORY = 256 * 1024 * 1024;

/**
 * 1,000 files of 0 to 40 KB in folders, and 10 of 20 MB, that do not compress, the same every time: 220 MB, which a
 * daemon could not hold in {@link MOST_MEMORY} beside itself.
 */
function writeSomeFiles(folder: string): void {
  const noise = createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16));
  const zeros = Buffer.alloc(20_000_000);
  for (let i = 0; i < 1_000; i++) {
    mkdirSync(join(folder, `${i % 20}/${i % 7}`), { recursive: true });
    const contents = noise.update(zeros.subarray(0, (i * 7919) % 40_000));
    writeFileSync(join(folder, `${i % 20}/${i % 7}/${i}`), contents);
  }
  for (let i = 0; i < 10; i++) writeFileSync(join(folder, `large-${i}`), noise.update(zeros));
}

/** The most memory that a running daemon has had at once, in bytes. */
function peakMemory({ process: { pid } }: Daemon): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

describeWithTools("a disk in front of a bucket", ["run-s3"], (launcher) => {
  it("gives back everything when the disk is lost, in 256 MiB", { timeout: 400_000 }, async () => {
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

    // The first run from a checkout strips types and compiles: that memory is not measured.
    await using warm = await startDaemon(daemonArgs, { env });
    warm.process.kill("SIGTERM");
    await warm.exit;
    let storePath: StorePath;
    {
      await using daemon = await startDaemon(daemonArgs, { env });
      const { stdout, stderr } = await tvixStore(["import", tree, ...client]);
      expect(stderr).toBe("");
      storePath = StorePath.parseAbsolute(stdout.trim());
      expect(peakMemory(daemon)).toBeLessThan(MOST_MEMORY);
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
      expect(peakMemory(daemon)).toBeLessThan(MOST_MEMORY);
      daemon.process.kill("SIGTERM");
      await daemon.exit;
      rmSync(join(server.data, "bucket"), { recursive: true, force: true });
      mkdirSync(join(server.data, "bucket"));
    }
  });
});
