import { Readable } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { BlobChunkSchema } from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import { noise } from "../../../test/noise.ts";
import { dataIn } from "./frames.ts";
import { MessageReader, type MessageReaderOptions } from "./message-reader.ts";

const MAX_BYTES = 1_000_000;
const AS_DATA: MessageReaderOptions = {
  maxBytes: MAX_BYTES,
  dataOf: (message) => dataIn(BlobChunkSchema, message),
};
const AS_MESSAGES: MessageReaderOptions = { maxBytes: MAX_BYTES };

function framed(message: Uint8Array): Buffer {
  const frame = Buffer.alloc(5 + message.length);
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, 5);
  return frame;
}

function chunkOf(data: Uint8Array): Buffer {
  return framed(toBinary(BlobChunkSchema, create(BlobChunkSchema, { data })));
}

function readerOf(chunks: readonly Uint8Array[], options: MessageReaderOptions): MessageReader {
  const stream = new Readable({ read: () => undefined });
  const reader = new MessageReader(stream, options);
  for (const chunk of chunks) stream.push(chunk);
  stream.push(null);
  return reader;
}

/** What is read before the end, or before it fails, and with what. */
async function readAll(
  chunks: readonly Uint8Array[],
  options: MessageReaderOptions,
): Promise<{ read: Uint8Array[]; error?: unknown }> {
  const read: Uint8Array[] = [];
  try {
    for await (const value of readerOf(chunks, options)) read.push(value);
    return { read };
  } catch (error) {
    return { read, error };
  }
}

const CONTENTS = [
  Buffer.from("first"),
  Buffer.alloc(0),
  noise(300),
  Buffer.of(7),
  noise(20_000, 2),
];
const BODY = Buffer.concat(CONTENTS.map(chunkOf));
const SHORT_BODY = Buffer.concat(CONTENTS.slice(0, 4).map(chunkOf));

describe("a stream that is faster than its reader", () => {
  it.each([
    ["large messages", AS_MESSAGES, Array.from({ length: 40 }, () => framed(noise(20_000)))],
    ["empty messages", AS_MESSAGES, Array.from({ length: 10_000 }, () => framed(Buffer.alloc(0)))],
    ["data by the byte", AS_DATA, Array.from({ length: 10_000 }, () => chunkOf(Buffer.of(1)))],
  ])("waits when it brings %s", async (_, options, messages) => {
    const stream = new Readable({ read: () => undefined });
    const reader = new MessageReader(stream, options);
    stream.push(Buffer.concat(messages));
    await turn();
    expect(stream.isPaused()).toBe(true);
    stream.push(null);
    for await (const _ of reader);
    expect(stream.isPaused()).toBe(false);
  });
});

describe("the messages of a body", () => {
  it.each([
    ["one after the other", CONTENTS.map(chunkOf)],
    ["in one chunk", [BODY]],
    ["in chunks of one byte", Array.from(BODY, (byte) => Uint8Array.of(byte))],
    [
      "with empty chunks between them",
      CONTENTS.flatMap((part) => [chunkOf(part), Buffer.alloc(0)]),
    ],
  ])("are read when they come %s", async (_, chunks) => {
    const { read, error } = await readAll(chunks, AS_MESSAGES);
    expect(error).toBeUndefined();
    expect(read.map((message) => Buffer.from(dataIn(BlobChunkSchema, message)))).toEqual(CONTENTS);
    const data = await readAll(chunks, AS_DATA);
    expect(Buffer.concat(data.read)).toEqual(Buffer.concat(CONTENTS));
  });

  it("are read wherever the body is split", async () => {
    for (let at = 0; at <= SHORT_BODY.length; at++) {
      const chunks = [SHORT_BODY.subarray(0, at), SHORT_BODY.subarray(at)];
      const messages = await readAll(chunks, AS_MESSAGES);
      expect(Buffer.concat(messages.read.map((one) => framed(one)))).toEqual(SHORT_BODY);
      const data = await readAll(chunks, AS_DATA);
      expect(Buffer.concat(data.read)).toEqual(Buffer.concat(CONTENTS.slice(0, 4)));
    }
  });

  it.each([
    ["a field that is not known", Buffer.from("0a0301020310050a0104", "hex"), "04"],
    ["the data twice, of which the last counts", Buffer.from("0a0101" + "0a020203", "hex"), "0203"],
    ["a length in more bytes than it needs", Buffer.from("0a83000102ff", "hex"), "0102ff"],
    ["only a field that is not known", Buffer.from("1005", "hex"), ""],
    ["no data", Buffer.from("0a00", "hex"), ""],
    ["nothing", Buffer.alloc(0), ""],
  ])("may have %s", async (_, message, data) => {
    const body = Buffer.concat([framed(message), chunkOf(Buffer.from("next"))]);
    for (let at = 0; at <= body.length; at++) {
      const { read, error } = await readAll([body.subarray(0, at), body.subarray(at)], AS_DATA);
      expect(error).toBeUndefined();
      expect(Buffer.concat(read).toString("hex")).toBe(data + Buffer.from("next").toString("hex"));
    }
  });
});

describe("a body", () => {
  it.each([
    ["has a compressed message", Buffer.from("0100000001ff", "hex"), 13],
    ["has a message that is too long", Buffer.from("00000f4241", "hex"), 8],
    ["has a message longer than 2 GiB", Buffer.from("00ffffffff0a", "hex"), 8],
    ["ends within what stands before a message", Buffer.from("000000", "hex"), 3],
    ["ends within a message", Buffer.from("00000000040a0201", "hex"), 3],
    ["ends before a message", Buffer.from("0000000004", "hex"), 3],
  ])("that %s fails after what came before", async (_, bytes, code) => {
    for (const options of [AS_DATA, AS_MESSAGES]) {
      const { read, error } = await readAll([chunkOf(Buffer.of(1)), bytes], options);
      expect(Buffer.from(read[0]!).at(-1)).toBe(1);
      expect(error).toMatchObject({ code });
    }
  });

  it.each([
    ["a type of field that there is not", Buffer.from("0f0102", "hex")],
    ["data longer than the message", Buffer.from("0a7f0102", "hex")],
  ])("with %s is no stream of data", async (_, message) => {
    const { error } = await readAll([framed(message)], AS_DATA);
    expect(error).toMatchObject({ code: 3 });
  });

  it("that breaks off fails with what it was made to fail with", async () => {
    const stream = new Readable({ read: () => undefined });
    const reader = new MessageReader(stream, { ...AS_DATA, isWhole: () => false });
    stream.push(chunkOf(Buffer.from("data")));
    stream.push(null);
    expect(Buffer.from((await reader.next()).value!).toString()).toBe("data");
    const next = reader.next();
    await turn();
    reader.fail(new Error("broken"));
    await expect(next).rejects.toThrow("broken");
    await expect(reader.next()).rejects.toThrow("broken");
  });

  it("is not taken faster than it is read", async () => {
    const piece = chunkOf(noise(16_000));
    let pushed = 0;
    const stream = new Readable({
      read() {
        if (pushed++ < 1000) setImmediate(() => this.push(piece));
        else this.push(null);
      },
    });
    const reader = new MessageReader(stream, AS_DATA);
    for (let i = 0; i < 500; i++) await turn();
    expect(pushed * piece.length).toBeLessThan(1024 * 1024);
    let length = 0;
    for await (const data of reader) length += data.length;
    expect(length).toBe(16_000 * 1000);
  });

  it("is left alone once its reader has stopped", async () => {
    const stream = new Readable({ read: () => undefined });
    const reader = new MessageReader(stream, AS_DATA);
    stream.push(BODY);
    for await (const _ of reader) break;
    expect(stream.isPaused()).toBe(true);
  });
});
