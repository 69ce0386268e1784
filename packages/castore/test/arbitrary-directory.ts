import fc from "fast-check";
import { B3Digest } from "../src/model/digest.ts";
import type { DirectoryEntry } from "../src/model/directory.ts";
import { type Node, symlinkTarget } from "../src/model/node.ts";
import { pathComponent } from "../src/model/path.ts";

const bytes = (minLength: number, maxLength: number) =>
  fc.uint8Array({ minLength, maxLength }).map((data) => data.map((byte) => byte || 1));
const name = bytes(1, 255)
  .map((data) => data.map((byte) => (byte === 0x2f || byte === 0x2e ? 1 : byte)))
  .map(pathComponent);
const digest = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(B3Digest.fromBytes);
// At each length of a number, and on both sides of what a double holds.
const size = fc.oneof(
  fc.constantFrom(...[0n, 1n, 127n, 128n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);
const node = fc.oneof(
  fc.record({ type: fc.constant("directory"), digest, size: size.map((size) => size >> 8n) }),
  fc.record({ type: fc.constant("file"), digest, size, executable: fc.boolean() }),
  fc.record({ type: fc.constant("symlink"), target: bytes(1, 4095).map(symlinkTarget) }),
) as fc.Arbitrary<Node>;
/** The entries of a directory, in any order. */
export const arbitraryEntries: fc.Arbitrary<DirectoryEntry[]> = fc.uniqueArray<
  DirectoryEntry,
  string
>(fc.record({ name, node }), {
  selector: ({ name }) => Buffer.from(name).toString("hex"),
  maxLength: 40,
});
