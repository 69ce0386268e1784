import { type PathComponent, pathComponent, symlinkTarget } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { NarWriter } from "./writer.ts";

// Base64 of what `nix-store --dump PATH` of Nix 2.8 prints.
const EXECUTABLE =
  "DQAAAAAAAABuaXgtYXJjaGl2ZS0xAAAAAQAAAAAAAAAoAAAAAAAAAAQAAAAAAAAAdHlwZQAAAAAHAAAAAAAAAHJlZ3VsYXIA" +
  "CgAAAAAAAABleGVjdXRhYmxlAAAAAAAAAAAAAAAAAAAIAAAAAAAAAGNvbnRlbnRzCQAAAAAAAABjb250ZW50cwoAAAAAAAAA" +
  "AQAAAAAAAAApAAAAAAAAAA==";
const SYMLINK =
  "DQAAAAAAAABuaXgtYXJjaGl2ZS0xAAAAAQAAAAAAAAAoAAAAAAAAAAQAAAAAAAAAdHlwZQAAAAAHAAAAAAAAAHN5bWxpbmsA" +
  "BgAAAAAAAAB0YXJnZXQAABgAAAAAAAAAL25peC9zdG9yZS9zb21ld2hlcmVlbHNlAQAAAAAAAAApAAAAAAAAAA==";
const EMPTY_FILE =
  "DQAAAAAAAABuaXgtYXJjaGl2ZS0xAAAAAQAAAAAAAAAoAAAAAAAAAAQAAAAAAAAAdHlwZQAAAAAHAAAAAAAAAHJlZ3VsYXIA" +
  "CAAAAAAAAABjb250ZW50cwAAAAAAAAAAAQAAAAAAAAApAAAAAAAAAA==";
const EMPTY_FOLDER =
  "DQAAAAAAAABuaXgtYXJjaGl2ZS0xAAAAAQAAAAAAAAAoAAAAAAAAAAQAAAAAAAAAdHlwZQAAAAAJAAAAAAAAAGRpcmVjdG9y" +
  "eQAAAAAAAAABAAAAAAAAACkAAAAAAAAA";

/** What a writer gives in pieces, each as it was when it came, and all of it. */
function write(show: (writer: NarWriter) => void) {
  const pieces: Uint8Array[] = [];
  const asTheyCame: Buffer[] = [];
  const writer = new NarWriter((bytes) => {
    pieces.push(bytes);
    asTheyCame.push(Buffer.from(bytes));
  });
  show(writer);
  writer.finish();
  return { pieces, asTheyCame, nar: Buffer.concat(pieces) };
}

function file(writer: NarWriter, contents: Uint8Array, pieceSize = contents.length): void {
  writer.file(BigInt(contents.length), false);
  for (let at = 0; at < contents.length; at += pieceSize) {
    writer.contents(contents.subarray(at, at + pieceSize));
  }
}

describe("NarWriter", () => {
  it.each([
    ["an empty file", EMPTY_FILE, (writer: NarWriter) => writer.file(0n, false)],
    [
      "an executable file",
      EXECUTABLE,
      (writer: NarWriter) => {
        writer.file(9n, true);
        writer.contents(Buffer.from("contents\n"));
      },
    ],
    [
      "a symlink",
      SYMLINK,
      (writer: NarWriter) => writer.symlink(symlinkTarget("/nix/store/somewhereelse")),
    ],
    [
      "an empty folder",
      EMPTY_FOLDER,
      (writer: NarWriter) => {
        writer.enterDirectory();
        writer.leaveDirectory();
      },
    ],
  ])("writes what Nix writes of %s", (_, expected, show) => {
    expect(write(show).nar.toString("base64")).toBe(expected);
  });

  it("writes the same however the contents are cut", () => {
    const contents = Buffer.alloc(100_003, "contents, ");
    const { nar } = write((writer) => file(writer, contents));
    for (const pieceSize of [1, 7, 16_383, 16_384, 16_385, 65_536, 100_002]) {
      const again = write((writer) => file(writer, contents, pieceSize));
      expect(again.nar.equals(nar)).toBe(true);
    }
  });

  it("passes large contents on without a copy", () => {
    const contents = Buffer.alloc(16 * 1024, "x");
    const { pieces } = write((writer) => {
      writer.file(BigInt(contents.length), false);
      writer.contents(contents);
    });
    expect(pieces).toContain(contents);
  });

  it("leaves alone what it has given away", () => {
    const { pieces, asTheyCame } = write((writer) => {
      writer.enterDirectory();
      for (let i = 0; i < 3000; i++) {
        writer.entry(pathComponent(`${i}`.padStart(4, "0")));
        file(writer, Buffer.alloc(i, `${i}`));
      }
      writer.leaveDirectory();
    });
    expect(pieces.length).toBeGreaterThan(10);
    for (const [i, piece] of pieces.entries()) expect(asTheyCame[i]!.equals(piece)).toBe(true);
  });

  it("writes names and targets as bytes, up to the longest", () => {
    const name = new Uint8Array(255).fill(0xff) as PathComponent;
    const target = symlinkTarget(new Uint8Array(4095).fill(0xfe));
    const { nar } = write((writer) => {
      writer.enterDirectory();
      for (let i = 0; i < 50; i++) {
        writer.entry(pathComponent(Uint8Array.of(...name.subarray(1), i + 48)));
        writer.symlink(target);
      }
      writer.leaveDirectory();
    });
    // Magic, "(", "type", "directory" and ")", then 50 times the tokens of an entry, a name of 255
    // bytes and a target of 4,095, each with its length and padded.
    const entry = 16 + 16 + 16 + (8 + 256) + 16 + 16 + 16 + 16 + 16 + (8 + 4096) + 16 + 16;
    expect(nar.length).toBe(24 + 16 + 16 + 24 + 16 + 50 * entry);
    expect(nar.includes(Buffer.from(target))).toBe(true);
  });
});
