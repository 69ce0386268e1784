import {
  ChunkList,
  MemoryDirectoryService,
  openBlobService,
  PackBlobService,
  putBlob,
} from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import { describe, expect, it } from "vitest";
import { serve } from "./grpc-over.ts";
import { temporaryFolder } from "./temporary-folder.ts";

/** Calls at the same time, and how often they are made: several times what a socket holds goes either way. */
const CALLS = 64;
const ROUNDS = 4;

describe("a client and a server that send each other more than sockets hold", () => {
  it("do not wait for each other", async () => {
    using folder = temporaryFolder();
    await using blobService = await PackBlobService.open({
      path: folder.path,
      averageChunkSize: 64 * 1024,
    });
    // Of 512 chunks: their list, and the question how long their frames are, have 18 KB each.
    const digest = await putBlob(blobService, new Uint8Array(64 * 1024 * 1024));
    const services = castoreServices({
      blobService,
      directoryService: new MemoryDirectoryService(),
    });
    await using server = await serve(services, "streams");
    await using client = await openBlobService(server.address);
    await using first = await client.open(digest);
    const chunks = ChunkList.fromBytes(first!.chunks.bytes);
    const list = async () => {
      await using reader = await client.open(digest);
      expect(reader!.chunks.length).toBe(chunks.length);
    };
    const measure = async () => {
      expect((await client.frameSizes!(chunks)).length).toBe(chunks.length);
    };
    for (let round = 0; round < ROUNDS; round++) {
      await Promise.all(Array.from({ length: CALLS }, (_, i) => (i % 2 ? list() : measure())));
    }
  });
});
