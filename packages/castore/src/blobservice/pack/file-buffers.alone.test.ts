import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { noise } from "../../../test/noise.ts";
import { SourceFile } from "../../disk/source-file.ts";
import { PackBlobService } from "./pack-blob-service.ts";

const MIB = 1024 * 1024;
const ROUNDS = 6;

/** Buffers in which commits gather records. */
const COMMITTED = 2;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "file-buffers-"));
});
afterEach(() => {
  vi.unstubAllGlobals();
  rmSync(folder, { recursive: true });
});

/** Counts the buffers of a megabyte and more that threads share. */
function countBuffers(): { made: number } {
  const count = { made: 0 };
  const construct = (target: SharedArrayBufferConstructor, args: [number]) => {
    if (args[0] >= MIB) count.made += 1;
    return Reflect.construct(target, args);
  };
  vi.stubGlobal("SharedArrayBuffer", new Proxy(SharedArrayBuffer, { construct }));
  return count;
}

it("large files that are read while small ones are held use the same buffers again", async () => {
  const [small, large] = [join(folder, "small"), join(folder, "large")];
  writeFileSync(small, "small");
  writeFileSync(large, noise(8 * MIB));
  const count = countBuffers();
  await using service = await PackBlobService.open({ path: join(folder, "store") });
  const { files } = service;
  for (let round = 0; round < ROUNDS; round++) {
    const batches = [];
    for (let i = 0; i < files.parallelism; i++) batches.push(await files.putSmall([small]));
    const file = await files.putLarge(await SourceFile.open(Buffer.from(large)));
    for await (const _ of file.pieces());
    await file.finish().stored;
    for (const batch of batches) batch[Symbol.dispose]();
  }
  expect(count.made).toBeLessThanOrEqual(2 * files.parallelism + COMMITTED);
});
