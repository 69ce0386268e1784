import { collectBytes, pathComponent, symlinkTarget } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { type NarEvent, readNar } from "./reader.ts";
import { NarWriter } from "./writer.ts";

const CONTENTS = Buffer.alloc(100_003, "some contents, ");

/** A NAR of a bit of everything. */
function sample(contents: Uint8Array = CONTENTS): Buffer {
  const parts: Uint8Array[] = [];
  const writer = new NarWriter((bytes) => parts.push(Buffer.from(bytes)));
  writer.enterDirectory();
  writer.entry(pathComponent("a"));
  writer.file(BigInt(contents.length), false);
  writer.contents(contents);
  writer.entry(pathComponent("b"));
  writer.enterDirectory();
  writer.entry(pathComponent(Uint8Array.of(0x20, 0xff)));
  writer.symlink(symlinkTarget("../target"));
  writer.entry(pathComponent("run"));
  writer.file(3n, true);
  writer.contents(Buffer.from("run"));
  writer.leaveDirectory();
  writer.entry(pathComponent("empty"));
  writer.file(0n, false);
  writer.leaveDirectory();
  writer.finish();
  return Buffer.concat(parts);
}

async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.slice(at, at + size);
}

/** Reads a NAR to its end, and writes what it says as another one. */
async function rewrite(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const writer = new NarWriter((bytes) => parts.push(Buffer.from(bytes)));
  for await (const event of readNar(stream)) {
    if (event.type === "directory") writer.enterDirectory();
    else if (event.type === "end") writer.leaveDirectory();
    else if (event.type === "entry") writer.entry(event.name);
    else if (event.type === "symlink") writer.symlink(event.target);
    else {
      writer.file(BigInt(event.size), event.executable);
      for await (const data of event.contents) writer.contents(data);
    }
  }
  writer.finish();
  return Buffer.concat(parts);
}

async function eventsOf(bytes: Uint8Array): Promise<NarEvent["type"][]> {
  const events = await Array.fromAsync(readNar(inPieces(bytes, 1000)));
  return events.map(({ type }) => type);
}

const refusal = expect.objectContaining({
  name: "StoreError",
  code: "invalid_argument",
  message: expect.stringMatching(/^Cannot read NAR: at byte \d+: /),
});

/** Strings as they stand in a NAR. */
function tokens(...strings: (string | Uint8Array)[]): Buffer {
  return Buffer.concat(
    strings.map((string) => {
      const bytes = Buffer.from(string as string);
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(bytes.length));
      return Buffer.concat([length, bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8)]);
    }),
  );
}

const entry = (name: string | Uint8Array) => [
  ...["entry", "(", "name", name, "node"],
  ...["(", "type", "symlink", "target", "t", ")", ")"],
];
const directory = (...names: (string | Uint8Array)[]) =>
  tokens("nix-archive-1", "(", "type", "directory", ...names.flatMap(entry), ")");

describe("readNar", () => {
  it.each([1, 7, 8, 1000, 1_000_000])(
    "reads what was written, in pieces of %i bytes",
    async (size) => {
      const nar = sample();
      expect((await rewrite(inPieces(nar, size))).equals(nar)).toBe(true);
    },
  );

  it("skips contents that nobody reads", async () => {
    expect(await eventsOf(sample())).toEqual([
      ...["directory", "entry", "file", "entry", "directory", "entry", "symlink"],
      ...["entry", "file", "end", "entry", "file", "end"],
    ]);
  });

  it("skips the rest of contents that somebody stopped to read", async () => {
    const types: string[] = [];
    for await (const event of readNar(inPieces(sample(), 100))) {
      types.push(event.type);
      if (event.type === "file") for await (const _ of event.contents) break;
    }
    expect(types).toHaveLength(13);
  });

  it("reads a root that is a file, or a symlink", async () => {
    const file = tokens("nix-archive-1", "(", "type", "regular", "contents", "x", ")");
    for await (const event of readNar(inPieces(file, 3))) {
      if (event.type !== "file") throw new Error("it is a file");
      expect(Buffer.from(await collectBytes(event.contents)).toString()).toBe("x");
    }
    const link = tokens("nix-archive-1", "(", "type", "symlink", "target", "x", ")");
    expect(await eventsOf(link)).toEqual(["symlink"]);
  });

  it("reads directories 10,000 deep, and not without end", async () => {
    const deep = (depth: number) => {
      const open = tokens("(", "type", "directory", "entry", "(", "name", "d", "node");
      const inner = tokens("(", "type", "directory", ")");
      const levels = (level: Buffer, count: number) => Buffer.alloc(level.length * count, level); // the same again and again
      return Buffer.concat([
        tokens("nix-archive-1"),
        levels(open, depth),
        inner,
        levels(tokens(")"), depth * 2),
      ]);
    };
    expect(await eventsOf(deep(10_000))).toHaveLength(30_002);
    await expect(eventsOf(deep(20_000))).rejects.toThrow("at most 16384 deep");
  });

  it("refuses a NAR that breaks off, wherever", async () => {
    const nar = sample(Buffer.from("short contents"));
    for (let length = 0; length < nar.length; length++) {
      await expect(eventsOf(nar.subarray(0, length))).rejects.toThrow(refusal);
    }
  });

  it("refuses, or reads as what it is, a NAR of which bytes are others", async () => {
    const nar = sample(Buffer.from("short contents"));
    let state = 1;
    const random = (limit: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * limit);
    };
    let refused = 0;
    for (let i = 0; i < 5000; i++) {
      const changed = Buffer.from(nar);
      for (let n = random(3); n >= 0; n--) changed[random(changed.length)] = random(256);
      try {
        expect((await rewrite(inPieces(changed, 64))).equals(changed)).toBe(true);
      } catch (error) {
        expect(error).toEqual(refusal);
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(4000);
  });

  it.each([
    ["something else", tokens("nix-archive-2"), /byte 0: expected "nix-archive-1"/],
    [
      "a token of a gigabyte",
      Buffer.concat([Buffer.from([0, 0, 0, 64]), Buffer.alloc(8)]),
      /at most/,
    ],
    [
      "names in another order",
      directory("b", "a"),
      /byte \d+: expected a name that sorts after "b"/,
    ],
    ["a name twice", directory("a", "a"), /sorts after "a", found "a"/],
    ["an empty name", directory(""), /at least 1 byte/],
    ["a name that is .", directory("."), /neither/],
    ["a name that is ..", directory(".."), /neither/],
    ["a name with a slash", directory("a/b"), /no "\/"/],
    ["a name with NUL", directory("a\0"), /no NUL/],
    ["a name of 256 bytes", directory("a".repeat(256)), /at most 255 bytes/],
    ["bytes behind the end", Buffer.concat([sample(), Buffer.alloc(1)]), /expected the end/],
    ["another type", tokens("nix-archive-1", "(", "type", "fifo"), /"regular" or "directory"/],
    [
      "an executable that says more",
      tokens("nix-archive-1", "(", "type", "regular", "executable", "yes"),
      /expected "", found "yes"/,
    ],
    [
      "padding that is not zero",
      Buffer.concat([tokens("nix-archive-1").fill(1, 21), tokens("(")]),
      /byte 21: expected zeros/,
    ],
    [
      "contents of an impossible length",
      Buffer.concat([
        tokens("nix-archive-1", "(", "type", "regular", "contents"),
        Buffer.alloc(8, 0xff),
      ]),
      /expected a length of at most/,
    ],
  ])("refuses %s", async (_, bytes, reason) => {
    await expect(eventsOf(bytes)).rejects.toThrow(refusal);
    await expect(eventsOf(bytes)).rejects.toThrow(reason);
  });

  it("passes on what the stream throws, and releases it when iterating ends early", async () => {
    const failure = new Error("the stream broke");
    const broken = async function* () {
      yield sample().subarray(0, 100);
      throw failure;
    };
    await expect(rewrite(broken())).rejects.toBe(failure);
    let released = false;
    const watched = async function* () {
      try {
        yield* inPieces(sample(), 10);
      } finally {
        released = true;
      }
    };
    for await (const _ of readNar(watched())) break;
    expect(released).toBe(true);
  });
});
