import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { chunksOf } from "../../test/chunks-of.ts";
import { collectBytes, equalBytes } from "../bytes/byte-string.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import type { ReadOptions } from "./blob-service.ts";
import { MemoryBlobService } from "./memory.ts";
import { putBlob } from "./put-blob.ts";

const data: Uint8Array = createHash("shake256", { outputLength: 2_000_000 })
  .update("memory")
  .digest();

async function read(
  service: MemoryBlobService,
  digest: B3Digest,
  options?: ReadOptions,
): Promise<Uint8Array | undefined> {
  const stream = await service.read(digest, options);
  return stream === undefined ? undefined : await collectBytes(stream);
}

describe("MemoryBlobService", () => {
  it("reads a blob and each of its chunks back", async () => {
    await using service = new MemoryBlobService();
    const digest = await putBlob(service, data);
    expect(equalBytes((await read(service, digest))!, data)).toBe(true);
    const range = await read(service, digest, { offset: 999_999, length: 500_000 });
    expect(equalBytes(range!, data.subarray(999_999, 1_499_999))).toBe(true);
    const chunks = (await chunksOf(service, digest))!;
    expect(chunks.length).toBeGreaterThan(1);
    let position = 0;
    for (const chunk of chunks) {
      const end = position + chunk.size;
      expect(await service.has(chunk.digest)).toBe(true);
      expect(await chunksOf(service, chunk.digest)).toEqual([chunk]);
      const found = await read(service, chunk.digest);
      expect(equalBytes(found!, data.subarray(position, end))).toBe(true);
      position = end;
    }
    expect(position).toBe(data.length);
  });

  it("has nothing of a blob that was not closed", async () => {
    await using service = new MemoryBlobService();
    const elsewhere = new MemoryBlobService();
    const digest = await putBlob(elsewhere, data);
    const chunks = (await chunksOf(elsewhere, digest))!;
    const writer = service.openWriter();
    await writer.write(data);
    for (const candidate of [digest, ...chunks.map((chunk) => chunk.digest)]) {
      expect(await service.has(candidate)).toBe(false);
      expect(await chunksOf(service, candidate)).toBeUndefined();
      expect(await service.read(candidate)).toBeUndefined();
    }
    await writer[Symbol.asyncDispose]();
    expect(await service.has(digest)).toBe(false);
    expect(await service.has(chunks[0]!.digest)).toBe(false);
  });

  it("keeps the empty blob only once it was put", async () => {
    await using service = new MemoryBlobService();
    const empty = blake3Digest(new Uint8Array(0));
    expect(await service.has(empty)).toBe(false);
    expect(await putBlob(service, new Uint8Array(0))).toEqual(empty);
    expect(await chunksOf(service, empty)).toEqual([]);
    expect((await read(service, empty))?.length).toBe(0);
  });

  it("is not changed by what a reader does to the bytes", async () => {
    await using service = new MemoryBlobService();
    const digest = await putBlob(service, data);
    for await (const piece of (await service.read(digest))!) piece.fill(0);
    expect(blake3Digest((await read(service, digest))!)).toEqual(digest);
  });

  it("refuses a cancelled call with the reason", async () => {
    await using service = new MemoryBlobService();
    const digest = await putBlob(service, data);
    const options = { signal: AbortSignal.abort("cancelled") };
    await expect(service.has(digest, options)).rejects.toBe("cancelled");
    await expect(service.open(digest, options)).rejects.toBe("cancelled");
    await expect(service.read(digest, options)).rejects.toBe("cancelled");
    await expect(putBlob(service, new Uint8Array(1), options)).rejects.toBe("cancelled");
  });
});
