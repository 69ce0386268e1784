import { create } from "@bufbuild/protobuf";
import { type ReadEachRequest, ReadEachRequestSchema } from "@tvix/proto/castore";
import { expect, it } from "vitest";
import type { StoredBlob } from "../../blobservice/blob-service.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { MAX_EACH_BYTES, MAX_EACH_READS } from "../../model/limits.ts";
import { EachRead } from "./each-read.ts";

const DIGEST = blake3Digest(Buffer.from("a blob")).bytes;
const ask = (id: number, size = 6, digest: Uint8Array = DIGEST): ReadEachRequest =>
  create(ReadEachRequestSchema, { id, blob: { digest, size: BigInt(size) } });

/** Requests that do not end. */
async function* pending(...requests: readonly ReadEachRequest[]): AsyncGenerator<ReadEachRequest> {
  yield* requests;
  await new Promise(() => undefined);
}

it("refuses a name that another read has, and what is no digest", async () => {
  const hangs = new EachRead(() => new Promise(() => undefined));
  const again = hangs.responses(pending(ask(1), ask(1)));
  await expect(again.next()).rejects.toMatchObject({ code: "invalid_argument" });
  const short = new EachRead(async () => undefined).responses(pending(ask(1, 6, DIGEST.slice(1))));
  await expect(short.next()).rejects.toMatchObject({ code: "invalid_argument" });
});

it.each([
  ["reads", Array.from({ length: MAX_EACH_READS }, (_, id) => ask(id))],
  ["bytes", [ask(0, MAX_EACH_BYTES)]],
])("answers without a blob what is more than so many %s", async (_, asked) => {
  const signals: AbortSignal[] = [];
  const hangs = new EachRead((_, { signal }) => {
    signals.push(signal!);
    return new Promise(() => undefined);
  });
  const responses = hangs.responses(pending(...asked, ask(100)));
  const { value } = await responses.next();
  expect(value).toMatchObject({ id: 100 });
  expect(value!.blob).toBeUndefined();
  expect(signals).toHaveLength(asked.length);
  await responses.return(undefined);
  expect(signals.every(({ aborted }) => aborted)).toBe(true);
});

it("makes room when a read is answered or cancelled, and ends with the last answer", async () => {
  const waiting: ((found: StoredBlob | undefined) => void)[] = [];
  const each = new EachRead(
    () => new Promise<StoredBlob | undefined>((resolve) => waiting.push(resolve)),
  );
  const all = { size: MAX_EACH_BYTES, contents: Buffer.from("a blob") };
  async function* requests() {
    yield ask(1, all.size);
    yield create(ReadEachRequestSchema, { id: 1 });
    yield ask(2, all.size);
    waiting[0]!({ contents: all.contents }); // was cancelled: it is not answered
    waiting[1]!({ contents: all.contents });
    await expect.poll(() => answered.length).toBe(1);
    yield ask(3, all.size);
    waiting[2]!(undefined);
  }
  const answered: unknown[] = [];
  for await (const { id, blob } of each.responses(requests())) answered.push([id, blob]);
  expect(answered).toEqual([
    [2, expect.objectContaining({ present: true, contents: all.contents })],
    [3, expect.objectContaining({ present: false })],
  ]);
});
