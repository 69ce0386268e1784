import { execFile } from "node:child_process";
import { createReadStream } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { blake3Digest, importPath, MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readTreeSpecs, writeTree } from "../src/index.ts";
import { CLOUDS } from "./clouds.ts";
import { serve } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const EXAMPLES = fileURLToPath(new URL("../../castore/examples/", import.meta.url));

async function run(example: string, ...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [
    join(EXAMPLES, `${example}.ts`),
    ...args,
  ]);
  return stdout;
}

const folder = temporaryFolder();
const tree = join(folder.path, "tree");
const newPath = (name: string) => join(folder.path, name);
let expected: string;
beforeAll(async () => {
  await writeTree(readTreeSpecs().find(({ tree }) => tree === "name-order")!, tree);
  const blobService = new MemoryBlobService();
  const root = await importPath(tree, {
    blobService,
    directoryService: new MemoryDirectoryService(),
  });
  expected = `${root.type === "directory" && root.digest}: read`;
});
afterAll(() => folder[Symbol.dispose]());

describe("the examples run", () => {
  it("in memory and on a disk", async () => {
    expect(await run("memory", tree)).toContain(expected);
    expect(await run("disk", tree, newPath("disk"))).toContain(expected);
    expect(await run("files", tree, newPath("files"))).toContain(expected);
  });

  it("with a daemon, and with a disk before it", async () => {
    const services = {
      blobService: new MemoryBlobService(),
      directoryService: new MemoryDirectoryService(),
    };
    await using server = await serve(castoreServices(services), "streams");
    expect(await run("grpc", tree, server.address)).toContain(expected);
    expect(await run("cache", tree, newPath("near"), server.address)).toContain(expected);
  });

  it("from a TOML file", async () => {
    const toml = newPath("stores.toml");
    const stores = ["blobservices", "directoryservices"];
    await writeFile(toml, stores.map((kind) => `[${kind}.default]\ntype = "memory"\n`).join("\n"));
    expect(await run("composition", tree, toml)).toContain(expected);
  });

  it("with a web server", async () => {
    const store = newPath("served");
    await run("files", tree, store);
    const server = createServer((request, response) => {
      const stream = createReadStream(join(store, request.url!));
      stream.on("error", () => response.writeHead(404).end());
      stream.pipe(response);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const { port } = server.address() as AddressInfo;
      const { hex } = blake3Digest(Buffer.from("1")); // a/1 in the tree
      expect(await run("web", `http://127.0.0.1:${port}`, hex)).toBe("1");
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });
});

const CLOUD_EXAMPLES = { S3: "s3", "Google Cloud": "google-cloud", Azure: "azure" };
for (const [cloud, example] of Object.entries(CLOUD_EXAMPLES)) {
  CLOUDS[cloud]!(`the example for ${cloud}`, (newBucket) => {
    it("runs", async () => expect(await run(example, tree, await newBucket())).toContain(expected));
  });
}
