import { constants, type ServerHttp2Stream } from "node:http2";
import { describe, expect, it } from "vitest";
import { noise } from "../../../test/noise.ts";
import { type ServedBlobs, serveBlobs } from "../../../test/served-blobs.ts";
import type { StoredBlob } from "../../blobservice/blob-service.ts";
import { MemoryBlobService } from "../../blobservice/memory.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_EACH_READS } from "../../model/limits.ts";

const EACH = "/tvix.castore.v1alpha.BlobBatchService/ReadEach";
const BATCH = "/tvix.castore.v1alpha.BlobBatchService/Read";

const blobOf = (seed: number, length = 20_000) => {
  const contents = noise(length, seed);
  return { contents, digest: blake3Digest(contents), size: contents.length };
};
type Blob = ReturnType<typeof blobOf>;

/** Reads that hang until they are cancelled, by the hexadecimal form of the digest; or fail. */
class Stored extends MemoryBlobService {
  readonly hung = new Map<string, AbortSignal | undefined>();
  readonly hanging = new Set<string>();
  failure: CastoreError | undefined;

  override async readMany(
    ...[blobs, options]: Parameters<MemoryBlobService["readMany"]>
  ): ReturnType<MemoryBlobService["readMany"]> {
    if (this.failure !== undefined) throw this.failure;
    for (const { digest } of blobs) {
      const key = digest.toString();
      if (!this.hanging.has(key)) continue;
      this.hung.set(key, options?.signal);
      await new Promise((_, reject) => {
        options?.signal?.addEventListener("abort", () => reject(options.signal!.reason));
      });
    }
    return await super.readMany(blobs, options);
  }
}

interface Fixture extends ServedBlobs {
  readonly stored: Stored;
  /** How many calls are under way. */
  readonly open: () => number;
  read(blob: Blob, options?: AbortOptions): Promise<StoredBlob | undefined>;
}

/** @param each answers the calls that read each by itself. Default: the server of this package does */
async function start(each?: (stream: ServerHttp2Stream) => void): Promise<Fixture> {
  const stored = new Stored();
  let open = 0;
  const fixture = await serveBlobs(stored, (path, stream) => {
    open += 1;
    stream.once("close", () => {
      open -= 1;
    });
    if (each === undefined || path !== EACH) return false;
    each(stream.on("error", () => undefined));
    return true;
  });
  return Object.assign(fixture, {
    stored,
    open: () => open,
    async read(blob: Blob, options?: AbortOptions) {
      const [found] = await fixture.blobService.readManyStored([blob], options);
      return found;
    },
  });
}

/** Stores blobs that hang when they are read. */
async function storeHanging(stored: Stored, count: number): Promise<Blob[]> {
  const blobs = Array.from({ length: count }, (_, i) => blobOf(1_000 + i));
  await stored.putMany(blobs.map(({ contents }) => contents));
  for (const { digest } of blobs) stored.hanging.add(digest.toString());
  return blobs;
}

describe("single blobs that are read in their stored form", () => {
  it("share a call, which ends when nobody reads any more", async () => {
    await using fixture = await start();
    const blobs = Array.from({ length: 300 }, (_, i) => blobOf(i));
    await fixture.stored.putMany(blobs.map(({ contents }) => contents));
    for (const blob of blobs) {
      expect(await fixture.read(blob)).toMatchObject({ contents: blob.contents });
    }
    const [{ digest }] = blobs as [Blob];
    expect(await fixture.read({ ...blobOf(-1), digest, size: 5 })).toBeUndefined();
    expect(await fixture.read(blobOf(-1))).toBeUndefined();
    const both = await Promise.all(blobs.slice(0, 40).map((blob) => fixture.read(blob)));
    expect(both).toEqual(
      blobs.slice(0, 40).map(({ contents }) => expect.objectContaining({ contents })),
    );
    expect(new Set(fixture.calls)).toEqual(new Set([EACH]));
    expect(fixture.calls.length).toBeLessThan(5);
    await expect.poll(fixture.open, { timeout: 10_000 }).toBe(0);
  });

  it("do not wait for one that hangs; cancelling that one reaches the server", async () => {
    await using fixture = await start();
    const [hanging] = (await storeHanging(fixture.stored, 1)) as [Blob];
    const other = blobOf(1);
    await fixture.stored.putMany([other.contents]);
    const cancelling = new AbortController();
    const waiting = fixture.read(hanging, { signal: cancelling.signal });
    const key = hanging.digest.toString();
    await expect.poll(() => fixture.stored.hung.has(key)).toBe(true);
    expect(await fixture.read(other)).toMatchObject({ contents: other.contents });
    const reason = new Error("enough");
    cancelling.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect.poll(() => fixture.stored.hung.get(key)?.aborted).toBe(true);
    expect(await fixture.read(other)).toMatchObject({ contents: other.contents });
    expect(fixture.calls).toEqual([EACH]);
  });

  it("do not wait for as many that hang as a call takes", async () => {
    await using fixture = await start();
    const hanging = await storeHanging(fixture.stored, MAX_EACH_READS);
    const other = blobOf(1);
    await fixture.stored.putMany([other.contents]);
    const cancelling = new AbortController();
    const waiting = hanging.map((blob) => fixture.read(blob, { signal: cancelling.signal }));
    const settled = Promise.allSettled(waiting);
    await expect.poll(() => fixture.stored.hung.size).toBe(hanging.length);
    expect(await fixture.read(other)).toMatchObject({ contents: other.contents });
    cancelling.abort(new Error("enough"));
    await settled;
  });

  it("fail as reading them together does", async () => {
    await using fixture = await start();
    fixture.stored.failure = new CastoreError("permission_denied", "not you");
    const failure = { code: "permission_denied", message: expect.stringContaining("not you") };
    await expect(fixture.read(blobOf(1))).rejects.toMatchObject(failure);
    expect(fixture.calls).toEqual([EACH, BATCH]);
  });

  it.each<[string, number, (stream: ServerHttp2Stream) => void]>([
    [
      "that does not do it, as older ones",
      1,
      (stream) => stream.respond({ ":status": 200, "grpc-status": "12" }, { endStream: true }),
    ],
    ["that cuts the call", 3, (stream) => stream.close(constants.NGHTTP2_INTERNAL_ERROR)],
    ["that ends the call", 3, (stream) => stream.respond({ ":status": 200 }, { endStream: true })],
    ["that says nothing, as a proxy that waits for the end", 1, () => undefined],
    [
      "that answers what nobody has asked for, and then nonsense",
      3,
      (stream) => {
        stream.respond({ ":status": 200, "content-type": "application/grpc" });
        stream.write(Buffer.from([0, 0, 0, 0, 2, 8, 99, 0, 0, 0, 0, 2, 0xff, 0xff]));
      },
    ],
  ])("are read by other calls at a server %s", async (_, each, answer) => {
    await using fixture = await start(answer);
    const blob = blobOf(1);
    await fixture.stored.putMany([blob.contents]);
    for (let i = 0; i < 3; i++) {
      expect(await fixture.read(blob)).toMatchObject({ contents: blob.contents });
    }
    expect(fixture.calls.filter((path) => path === EACH)).toHaveLength(each);
    expect(fixture.calls.filter((path) => path === BATCH)).toHaveLength(3);
  });
});
