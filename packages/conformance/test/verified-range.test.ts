import type { ServiceImpl } from "@connectrpc/connect";
import {
  type B3Digest,
  type BlobReader,
  blake3Digest,
  ChunkedBlobReader,
  ChunkList,
  type ChunkMeta,
  collectBytes,
  MemoryBlobService,
  MemoryDirectoryService,
  Outboard,
  OutboardEncoder,
  openBlobService,
  putBlob,
  type ReadOptions,
  verifiedRange,
} from "@tvix/castore";
import { castoreServices, type ServedService } from "@tvix/castore/rpc";
import { BlobService as BlobServiceDescriptor, type StatBlobRequest } from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import { seededBytes } from "../src/index.ts";
import { overGrpc } from "./grpc-over.ts";

const CONTENTS = seededBytes("true", 3_000_000);
const OTHER = seededBytes("other", 3_000_000);
const DIGEST = blake3Digest(CONTENTS);

function outboardBytes(contents: Uint8Array): Uint8Array {
  const encoder = new OutboardEncoder();
  encoder.update(contents);
  return encoder.finish();
}

/** Says that a blob is cut into the parts of another. */
class LyingBlobService extends MemoryBlobService {
  chunksOfOther: readonly ChunkMeta[] = [];
  outboardToSend: Uint8Array = outboardBytes(CONTENTS);

  static async create(): Promise<LyingBlobService> {
    const service = new LyingBlobService();
    await putBlob(service, CONTENTS);
    const middle = OTHER.subarray(1_000_000, 2_000_000);
    service.chunksOfOther = [
      CONTENTS.subarray(0, 1_000_000),
      middle,
      CONTENTS.subarray(2_000_000),
    ].map((part) => ({ digest: blake3Digest(part), size: part.length }));
    for (const part of [0, 2]) {
      await putBlob(service, CONTENTS.subarray(part * 1_000_000, (part + 1) * 1_000_000));
    }
    await putBlob(service, middle);
    return service;
  }

  override async open(digest: B3Digest): Promise<BlobReader | undefined> {
    const fetch = () => Promise.reject(new Error("nobody reads it"));
    const isCut = this.chunksOfOther.length > 0;
    if (!isCut || !digest.equals(DIGEST)) return await super.open(digest);
    return new ChunkedBlobReader(digest, ChunkList.of(this.chunksOfOther), fetch);
  }

  async outboard(): Promise<Outboard> {
    const { outboardToSend: bytes } = this;
    return Object.assign(Object.create(Outboard.prototype), { digest: DIGEST, bytes });
  }
}

interface ServeOptions {
  /** Whether the server knows of outboards, as not all do. Default: it does. */
  sendsOutboards?: boolean;
  /** Called for each Stat request. */
  onStat?: (request: StatBlobRequest) => void;
}

async function serve(
  blobService: MemoryBlobService,
  { sendsOutboards = true, onStat }: ServeOptions = {},
) {
  const directoryService = new MemoryDirectoryService();
  const services = castoreServices({ blobService, directoryService }).map((served) => {
    if (served.service !== BlobServiceDescriptor) return served;
    const implementation = served.implementation as ServiceImpl<typeof BlobServiceDescriptor>;
    const stat: typeof implementation.stat = async (request, context) => {
      onStat?.(request);
      const answer = await implementation.stat(request, context);
      return sendsOutboards ? answer : { ...answer, bao: new Uint8Array(0) };
    };
    const changed = { ...implementation, stat };
    return { ...served, implementation: changed, encoders: {} } as unknown as ServedService;
  });
  return await overGrpc(blobService, services, openBlobService, "streams");
}

const dataLoss = { name: "CastoreError", code: "data_loss" };

async function readVerified(service: Awaited<ReturnType<typeof serve>>, range: ReadOptions) {
  const parts: Buffer[] = [];
  const reading = (async () => {
    for await (const part of (await verifiedRange(service, DIGEST, range))!) {
      parts.push(Buffer.from(part));
    }
  })();
  return { reading, parts };
}

describe("verifiedRange over gRPC", () => {
  it("does not believe how a server cuts a blob", async () => {
    await using client = await serve(await LyingBlobService.create());
    const range = { offset: 900_000, length: 200_000 };
    const believed = await collectBytes((await client.read(DIGEST, range))!);
    expect(Buffer.from(believed).equals(CONTENTS.subarray(900_000, 1_100_000))).toBe(false);

    const { reading, parts } = await readVerified(client, range);
    await expect(reading).rejects.toMatchObject(dataLoss);
    const { length } = Buffer.concat(parts);
    expect(Buffer.concat(parts).equals(CONTENTS.subarray(900_000, 900_000 + length))).toBe(true);
    expect(length).toBeLessThan(100_000);
    const whole = await readVerified(client, { offset: 2_100_000, length: 5 });
    await whole.reading;
    expect(Buffer.concat(whole.parts).equals(CONTENTS.subarray(2_100_000, 2_100_005))).toBe(true);
  });

  it("does not believe an outboard, nor a length, of something else", async () => {
    const lying = await LyingBlobService.create();
    const shorter = CONTENTS.subarray(0, 2_999_999);
    const lengthChanged = outboardBytes(CONTENTS);
    new DataView(lengthChanged.buffer).setBigUint64(0, 2_999_999n, true);
    for (const bytes of [outboardBytes(OTHER), outboardBytes(shorter), lengthChanged]) {
      lying.outboardToSend = bytes;
      for (const offset of [0, 2_999_998, 2_999_999, 5_000_000]) {
        const outcome = (async () => {
          await using fresh = await serve(lying);
          await (await readVerified(fresh, { offset })).reading;
        })();
        await expect(outcome).rejects.toMatchObject(dataLoss);
      }
    }
  });

  it("asks for an outboard once, for whatever parts and readers", async () => {
    const service = await LyingBlobService.create();
    service.chunksOfOther = [];
    let asked = 0;
    await using client = await serve(service, { onStat: ({ sendBao }) => (asked += +sendBao) });
    const ranges = [0, 1_000_000, 2_999_990].map((offset) => ({ offset, length: 10 }));
    for (const round of [ranges, ranges.toReversed()]) {
      await Promise.all(
        round.map(async (range) => {
          const { reading, parts } = await readVerified(client, range);
          await reading;
          const expected = CONTENTS.subarray(range.offset, range.offset + 10);
          expect(Buffer.concat(parts).equals(expected)).toBe(true);
        }),
      );
    }
    expect(asked).toBe(1);
  });

  it("makes the outboard itself where a server sends none", async () => {
    const honest = new MemoryBlobService();
    await putBlob(honest, CONTENTS);
    await using client = await serve(honest, { sendsOutboards: false });
    const { reading, parts } = await readVerified(client, { offset: 2_999_990 });
    await reading;
    expect(Buffer.concat(parts).equals(CONTENTS.subarray(2_999_990))).toBe(true);
    expect(await verifiedRange(client, blake3Digest(OTHER))).toBeUndefined();
  });
});
