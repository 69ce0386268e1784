import { MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { ingestNar } from "./ingest.ts";
import { renderNar } from "./renderer.ts";
import { readSmallNar, storeSmallNar } from "./small-nar.ts";

/** Encodes strings as a NAR has them. */
function nar(...strings: (string | Uint8Array)[]): Buffer {
  const parts = strings.flatMap((text) => {
    const bytes = Buffer.from(text);
    const length = Buffer.alloc(8);
    length.writeUInt32LE(bytes.length);
    return [length, bytes, Buffer.alloc(-bytes.length & 7)];
  });
  return Buffer.concat(parts);
}

const file = (contents: string | Uint8Array) => ["(", "type", "regular", "contents", contents, ")"];
const program = (contents: string) => [
  ...["(", "type", "regular", "executable", "", "contents", contents, ")"],
];
const link = (target: string) => ["(", "type", "symlink", "target", target, ")"];
const folder = (...entries: [name: string, node: (string | Uint8Array)[]][]) => [
  ...["(", "type", "directory"],
  ...entries.flatMap(([name, node]) => ["entry", "(", "name", name, "node", ...node, ")"]),
  ")",
];

const NARS: [string, (string | Uint8Array)[]][] = [
  ["a file", file("contents")],
  ["an empty file", file("")],
  ["a program", program("#!/bin/sh")],
  ["a symlink", link("/nix/store")],
  ["an empty folder", folder()],
  ["files of the same contents", folder(["a", file("same")], ["b", program("same")])],
  [
    "folders in folders",
    folder(
      ["a", folder(["b", folder(["c", file("deep")])], ["empty", folder()])],
      ["large", file(Buffer.alloc(700_000, "large"))],
      ["link", link("a/b")],
      ["z", folder(["c", file("deep")])],
    ),
  ],
];

const services = () => ({
  blobService: new MemoryBlobService(),
  directoryService: new MemoryDirectoryService(),
});

async function* only(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

describe.each(NARS)("a NAR in memory of %s", (_, root) => {
  const bytes = nar("nix-archive-1", ...root);

  it("has the root, size and hash that it has where it is stored in one pass", async () => {
    const { node, narSize, narSha256 } = await readSmallNar(bytes);
    const expected = await ingestNar(only(bytes), services());
    expect({ node, narSize, narSha256 }).toEqual(expected);
  });

  it("is rendered as it was once it is stored", async () => {
    const target = services();
    const small = await readSmallNar(bytes);
    await storeSmallNar(small, target);
    const rendered = await Array.fromAsync(renderNar(small.node, target), (part) =>
      Buffer.from(part),
    );
    expect(Buffer.concat(rendered).equals(bytes)).toBe(true);
  });

  it("is refused where it breaks off, or something follows", async () => {
    for (const wrong of [bytes.subarray(0, -1), Buffer.concat([bytes, nar("")])]) {
      await expect(readSmallNar(wrong)).rejects.toMatchObject({ code: "invalid_argument" });
    }
  });
});

it("shows no directory of a NAR whose files cannot be stored", async () => {
  const target = services();
  target.blobService.putMany = () => Promise.reject(new Error("full"));
  const small = await readSmallNar(nar("nix-archive-1", ...folder(["a", file("contents")])));
  await expect(storeSmallNar(small, target)).rejects.toThrow("full");
  const { node } = small;
  if (node.type !== "directory") throw new Error("it is a folder");
  expect(await target.directoryService.get(node.digest)).toBeUndefined();
});
