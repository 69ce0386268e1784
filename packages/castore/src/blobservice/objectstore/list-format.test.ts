import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { StatBlobResponse_ChunkMetaSchema, StatBlobResponseSchema } from "@tvix/proto/castore";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_CHUNK_BYTES } from "../../model/limits.ts";
import { ChunkList, ChunkListBuilder } from "../chunk-list.ts";
import { encodeList, ListDecoder } from "./list-format.ts";

async function encode(list: ChunkList): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(encodeList(list)));
}

function decode(bytes: Uint8Array, step = bytes.length || 1): ChunkList {
  const decoder = new ListDecoder();
  for (let at = 0; at < bytes.length; at += step) decoder.add(bytes.subarray(at, at + step));
  return decoder.finish();
}

/** The same list as the generated code has it. */
function message(chunks: readonly { digest: Uint8Array; size: number }[], bao = new Uint8Array(0)) {
  return toBinary(
    StatBlobResponseSchema,
    create(StatBlobResponseSchema, {
      chunks: chunks.map(({ digest, size }) =>
        create(StatBlobResponse_ChunkMetaSchema, { digest, size: BigInt(size) }),
      ),
      bao,
    }),
  );
}

const chunk = fc.record({
  digest: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  size: fc.integer({ min: 1, max: MAX_CHUNK_BYTES }),
});
const chunks = fc.array(chunk, { maxLength: 100 });

const listOf = (chunks: readonly { digest: Uint8Array; size: number }[]) =>
  ChunkList.of(chunks.map(({ digest, size }) => ({ digest: B3Digest.fromBytes(digest), size })));

const wrong = expect.objectContaining({ name: "CastoreError", code: "data_loss" });

describe("the encoding of a list of chunks", () => {
  it("is that of the generated code", async () => {
    await fc.assert(
      fc.asyncProperty(chunks, async (chunks) => {
        expect(Buffer.compare(await encode(listOf(chunks)), message(chunks))).toBe(0);
      }),
      { seed: 15 },
    );
  });

  it("is decoded from pieces of any length, past fields that it does not use", () => {
    const bao = fc.uint8Array({ maxLength: 300 });
    fc.assert(
      fc.property(chunks, bao, fc.integer({ min: 1, max: 200 }), (chunks, bao, step) => {
        expect(decode(message(chunks, bao), step).equals(listOf(chunks))).toBe(true);
      }),
      { seed: 15 },
    );
  });

  it("takes any bytes as the generated code does, or refuses them", () => {
    fc.assert(
      fc.property(chunks, fc.nat(), fc.integer({ min: 0, max: 255 }), (chunks, at, byte) => {
        const bytes = Buffer.from(message(chunks));
        if (bytes.length > 0) bytes[at % bytes.length] = byte;
        let found: ChunkList;
        try {
          found = decode(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(CastoreError);
          expect(error).toEqual(wrong);
          return;
        }
        const expected = fromBinary(StatBlobResponseSchema, bytes).chunks;
        const sizes = expected.map(({ digest, size }) => ({ digest, size: Number(size) }));
        expect(found.equals(listOf(sizes))).toBe(true);
      }),
      { seed: 15, numRuns: 500 },
    );
  });

  it.each([
    ["a chunk of no bytes", message([{ digest: new Uint8Array(32), size: 0 }])],
    ["a chunk of a terabyte", message([{ digest: new Uint8Array(32), size: 2 ** 40 }])],
    [
      "a chunk longer than any",
      message([{ digest: new Uint8Array(32), size: MAX_CHUNK_BYTES + 1 }]),
    ],
    ["a short digest", message([{ digest: new Uint8Array(31), size: 1 }])],
    ["no digest", Buffer.from("12021001", "hex")],
    ["a list that breaks off", message([{ digest: new Uint8Array(32), size: 1 }]).subarray(0, -1)],
    ["a field that breaks off", Buffer.from("1a0a00", "hex")],
    ["zeros", Buffer.alloc(10)],
    ["a group", Buffer.from("0b0c", "hex")],
    ["a number that does not end", Buffer.alloc(11, 0xff)],
    ["a chunk of 4 GB", Buffer.from("12ffffffff0f", "hex")],
  ])("refuses %s", (_, bytes) => {
    expect(() => decode(bytes)).toThrow(wrong);
    expect(() => decode(bytes, 1)).toThrow(wrong);
  });

  it("holds no step for long, for four million chunks", async () => {
    const builder = new ChunkListBuilder(4_000_000);
    const digest = B3Digest.fromBytes(new Uint8Array(32).fill(7));
    for (let i = 0; i < 4_000_000; i++) builder.push(digest, 262_144 + (i & 1));
    const list = builder.finish();
    const decoder = new ListDecoder();
    let pieces = 0;
    let longest = 0;
    for await (const piece of encodeList(list)) {
      pieces += 1;
      longest = Math.max(longest, piece.length);
      decoder.add(piece);
    }
    expect(longest).toBeLessThan(256 * 1024);
    expect(pieces).toBeGreaterThan(800);
    expect(decoder.finish().equals(list)).toBe(true);
  });
});
