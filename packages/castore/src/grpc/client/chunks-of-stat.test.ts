import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { StatBlobResponseSchema } from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import { countTurns } from "../../../test/count-turns.ts";
import { noise } from "../../../test/noise.ts";
import { ChunkList } from "../../blobservice/chunk-list.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { CHUNKS_PER_TURN, decodeChunks } from "./chunks-of-stat.ts";

const BAO = StatBlobResponseSchema.field.bao.number;
const DIGEST = blake3Digest(noise(10));

function encode(sizes: readonly bigint[], digest: Uint8Array = DIGEST.bytes): Uint8Array {
  const chunks = sizes.map((size) => ({ digest, size }));
  return toBinary(StatBlobResponseSchema, create(StatBlobResponseSchema, { chunks }));
}

describe("the chunks of a response to Stat", () => {
  it("are decoded in order, whatever other fields there are", async () => {
    const sizes = [1, 8 * 1024 * 1024, 300];
    const message = Buffer.concat([
      new BinaryWriter().tag(BAO, WireType.LengthDelimited).bytes(noise(8)).finish(),
      encode([1n, BigInt(sizes[1]!)]),
      new BinaryWriter().tag(9, WireType.Varint).uint32(7).finish(),
      encode([300n]),
    ]);
    const list = await decodeChunks(message, "Cannot test");
    expect(list.equals(ChunkList.of(sizes.map((size) => ({ digest: DIGEST, size }))))).toBe(true);
  });

  it("are none where none are listed", async () => {
    expect((await decodeChunks(new Uint8Array(0), "Cannot test")).length).toBe(0);
  });

  it("are decoded in steps, which end when the call is cancelled", async () => {
    const message = encode(Array.from({ length: 5 * CHUNKS_PER_TURN }, () => 100n));
    let list: ChunkList | undefined;
    const turns = await countTurns(async () => {
      list = await decodeChunks(message, "Cannot test");
    });
    expect(list!.length).toBe(5 * CHUNKS_PER_TURN);
    expect(turns).toBeGreaterThanOrEqual(4);
    const controller = new AbortController();
    const { signal } = controller;
    const decoding = decodeChunks(message, "Cannot test", { signal });
    controller.abort(new Error("enough"));
    await expect(decoding).rejects.toBe(signal.reason);
  });

  it.each([
    ["an empty chunk", encode([0n])],
    ["a chunk of more than 8 MiB", encode([1n, 8_388_609n])],
    ["a chunk of more bytes than a number holds", encode([2n ** 64n - 1n])],
    ["a short digest", encode([1n], new Uint8Array(31))],
  ])("with %s are refused as damage", async (_, message) => {
    await expect(decodeChunks(message, "Cannot test")).rejects.toMatchObject({
      code: "data_loss",
      message: expect.stringMatching(/^Cannot test: /),
    });
  });

  it.each([
    ["ends within a chunk", encode([100n]).subarray(0, 20)],
    ["ends within a tag", Uint8Array.of(0x80)],
    ["has a malformed chunk", Uint8Array.of(0x12, 2, 0x0a, 0x20)],
  ])("are an error of the server where the message %s", async (_, message) => {
    await expect(decodeChunks(message, "Cannot test")).rejects.toMatchObject({
      code: 13,
      rawMessage: expect.stringMatching(/^cannot decode tvix\.castore\.v1\.StatBlobResponse: /),
    });
  });
});
