import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  type BlobService,
  blake3Digest,
  type FrameBatch,
  importPath,
  MemoryDirectoryService,
  openBlobService,
  PackBlobService,
  putBlob,
} from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import { BlobBatchService as BlobBatchServiceDescriptor } from "@tvix/proto/castore";
import { expect, it } from "vitest";
import { seededBytes } from "../src/trees.ts";
import { serve } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

const MIB = 1024 * 1024;
const FILE = seededBytes("long file", 9 * MIB + 17);

/** A pack store that is served, and what clients put into it. */
async function served(path: string) {
  await using stack = new AsyncDisposableStack();
  const store = stack.use(await PackBlobService.open({ path }));
  const batches: FrameBatch[] = [];
  const uploads: (string | undefined)[] = [];
  const { putFrames, putList } = store;
  const blobService: BlobService = Object.assign(store, {
    putFrames: (batch: FrameBatch, options: object) => {
      const part = batch.part && { ...batch.part, upload: Uint8Array.from(batch.part.upload) };
      batches.push({ ...batch, part });
      return putFrames.call(store, batch, options);
    },
    putList: (...args: Parameters<BlobService["putList"]>) => {
      const upload = args[2]?.upload;
      uploads.push(upload && Buffer.from(upload).toString("hex"));
      return putList.apply(store, args);
    },
  });
  const directoryService = new MemoryDirectoryService();
  const services = castoreServices({ blobService, directoryService });
  const { address } = stack.use(await serve(services, "streams"));
  const client = stack.use(await openBlobService(address));
  const opened = stack.move();
  return {
    ...{ store, client, address, batches, uploads, directoryService },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

function partsOf(batches: readonly FrameBatch[]) {
  return batches.flatMap(({ part, chunks }) =>
    part ? [{ ...part, name: Buffer.from(part.upload).toString("hex"), size: chunks.size }] : [],
  );
}

it("a long file is sent as an upload in parts without gaps, in order", async () => {
  using folder = temporaryFolder();
  await using server = await served(join(folder.path, "store"));
  const path = join(folder.path, "file");
  writeFileSync(path, FILE);
  const { client: blobService, directoryService } = server;
  await importPath(path, { blobService, directoryService });
  expect(await server.store.has(blake3Digest(FILE))).toBe(true);
  const parts = partsOf(server.batches);
  expect(parts.length).toBeGreaterThan(3);
  let end = 0;
  for (const { name, offset, size } of parts.toSorted((a, b) => a.offset - b.offset)) {
    expect([name, offset]).toEqual([parts[0]!.name, end]);
    end += size;
  }
  expect(end).toBe(FILE.length);
  expect(server.uploads).toEqual([parts[0]!.name]);
});

it("a file of which the server has a part is stored by its chunks", async () => {
  using folder = temporaryFolder();
  await using server = await served(join(folder.path, "store"));
  await putBlob(server.store, FILE.slice(0, 5 * MIB));
  const path = join(folder.path, "file");
  writeFileSync(path, FILE);
  const { client: blobService, directoryService } = server;
  await importPath(path, { blobService, directoryService });
  expect(await server.store.has(blake3Digest(FILE))).toBe(true);
  expect(server.uploads).toEqual([undefined]);
});

it("a server refuses the name of an upload that is not 16 bytes long, and an offset that is no length", async () => {
  using folder = temporaryFolder();
  await using server = await served(join(folder.path, "store"));
  const nodeOptions = { path: decodeURIComponent(new URL(server.address.slice(5)).pathname) };
  const transport = createGrpcTransport({ baseUrl: "http://localhost", nodeOptions });
  const client = createClient(BlobBatchServiceDescriptor, transport);
  const [upload, offset] = [new Uint8Array(16), 2n ** 60n];
  for (const part of [{ upload: upload.slice(1) }, { upload, offset }]) {
    const putting = client.putFrames({ part });
    await expect(putting).rejects.toThrow("Cannot take a part of an upload");
  }
  const list = async function* () {
    yield { digest: new Uint8Array(32), upload: upload.slice(1) };
  };
  await expect(client.putList(list())).rejects.toThrow("Cannot take a part of an upload");
});
