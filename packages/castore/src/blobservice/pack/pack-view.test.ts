import { mkdirSync } from "node:fs";
import { expect, it } from "vitest";
import { noise } from "../../../test/noise.ts";
import { flipBit, PackStore } from "../../../test/pack-store.ts";
import { blake3Digest } from "../../hash/blake3-digest.ts";
import { PackView } from "./pack-view.ts";

const store = new PackStore();
const [TEXT, NOISE] = [Buffer.alloc(100_000, "compressible "), noise(100_000)];

/** What a view reads of contents; `undefined` if it reads nothing. */
function readBy(view: PackView, contents: Uint8Array): Buffer | undefined {
  const target = Buffer.alloc(contents.length);
  return view.read(blake3Digest(contents).bytes, target) ? target : undefined;
}

it("has what is stored, compressed or not, also what was stored after it was opened", async () => {
  await using service = await store.open({ maxPackSize: 50_000 });
  await service.putMany([TEXT]);
  using view = new PackView(service.packFolder);
  expect(readBy(view, TEXT)).toEqual(TEXT);
  expect(readBy(view, NOISE)).toBeUndefined();
  await service.putMany([NOISE, Buffer.alloc(0)]);
  expect(readBy(view, NOISE)).toEqual(NOISE);
  expect(readBy(view, Buffer.alloc(0))).toEqual(Buffer.alloc(0));
});

it("does not have what is of another length, or damaged", async () => {
  await using service = await store.open();
  await service.putMany([NOISE]);
  using view = new PackView(service.packFolder);
  const { bytes } = blake3Digest(NOISE);
  expect(view.read(bytes, Buffer.alloc(NOISE.length - 1))).toBe(false);
  expect(view.read(bytes, Buffer.alloc(NOISE.length + 1))).toBe(false);
  flipBit(store.packOf(), 50_000);
  expect(readBy(view, NOISE)).toBeUndefined();
});

it("reads from more packs than are open at a time", async () => {
  await using service = await store.open({ maxPackSize: 1 });
  const blobs = Array.from({ length: 70 }, (_, i) => Buffer.from(`contents ${i}`));
  for (const blob of blobs) await service.putMany([blob]);
  using view = new PackView(service.packFolder);
  for (const blob of [...blobs, ...blobs]) expect(readBy(view, blob)).toEqual(blob);
});

it("is not to be had where there is no store", () => {
  mkdirSync(store.path);
  expect(() => new PackView(store.path)).toThrow(expect.objectContaining({ name: "CastoreError" }));
});
