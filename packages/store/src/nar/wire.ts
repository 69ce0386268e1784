/**
 * The tokens of the NAR format: each string is its length as 64-bit little-endian number, its bytes,
 * and zeros up to a multiple of 8. https://nix.dev/manual/nix/latest/protocols/nix-archive
 */

/** Returns the length of the padding after `size` bytes. */
export function paddingLength(size: number): number {
  return (8 - (size % 8)) % 8;
}

/** Length of a number, as it precedes each string, in bytes. */
export const NUMBER_LENGTH = 8;

/** Returns how many bytes a string of `size` bytes takes with its length and padding. */
export function stringLength(size: number): number {
  return NUMBER_LENGTH + size + paddingLength(size);
}

/** Encodes strings, one after the other. */
function tokens(...strings: string[]): Buffer {
  const parts = strings.map((string) => {
    const bytes = Buffer.from(string, "latin1");
    const part = Buffer.alloc(stringLength(bytes.length));
    part.writeBigUInt64LE(BigInt(bytes.length));
    part.set(bytes, NUMBER_LENGTH);
    return part;
  });
  return Buffer.concat(parts);
}

/** Begins every NAR. */
export const MAGIC: Buffer = tokens("nix-archive-1");
/** Starts a directory; its entries follow, then {@link CLOSE}. */
export const DIRECTORY: Buffer = tokens("(", "type", "directory");
/** Starts an entry; its name as string, {@link ENTRY_NODE}, its node and {@link CLOSE} follow. */
export const ENTRY: Buffer = tokens("entry", "(", "name");
export const ENTRY_NODE: Buffer = tokens("node");
/** Starts a regular file; its contents as string and {@link CLOSE} follow. */
export const FILE: Buffer = tokens("(", "type", "regular", "contents");
export const EXECUTABLE_FILE: Buffer = tokens("(", "type", "regular", "executable", "", "contents");
/** Starts a symlink; its target as string and {@link CLOSE} follow. */
export const SYMLINK: Buffer = tokens("(", "type", "symlink", "target");
export const CLOSE: Buffer = tokens(")");
