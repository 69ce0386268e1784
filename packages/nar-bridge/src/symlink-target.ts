import { encodeNixbase32, StorePath } from "@tvix/store";
import { HttpError } from "./http-error.ts";

/** Where a symlink points to. */
interface Resolved {
  /** The hash part of a store path, in nixbase32. */
  readonly hashPart: string;
  /** The names below it. */
  readonly names: readonly Uint8Array[];
}

/**
 * Resolves the target of a symlink, without looking at what is there.
 *
 * @param path the store path that the symlink is in, and the names below that, the last of which is its own
 * @throws HttpError 404 for a target that is not in a store path
 */
export function resolveSymlink(
  path: readonly Uint8Array[],
  target: Uint8Array,
  storeDir: string,
): Resolved {
  const text = Buffer.from(target).toString("latin1"); // one character for each byte
  const inStore = text.startsWith(`${storeDir}/`);
  const outside = () =>
    new HttpError(
      404,
      `It is a symlink to ${JSON.stringify(`${Buffer.from(target)}`)}, not served here`,
    );
  if (text.startsWith("/") && !inStore) throw outside();
  const names = inStore ? [] : path.slice(0, -1);
  for (const name of (inStore ? text.slice(storeDir.length + 1) : text).split("/")) {
    if (name === "" || name === ".") continue;
    if (name !== "..") names.push(Buffer.from(name, "latin1"));
    else if (names.pop() === undefined) throw outside();
  }
  const [first, ...rest] = names;
  try {
    const { hashPart } = StorePath.parse(Buffer.from(first ?? []).toString());
    return { hashPart: encodeNixbase32(hashPart), names: rest };
  } catch {
    throw outside();
  }
}

/** Encodes a name for a URL, byte by byte. */
export function encodeName(name: Uint8Array): string {
  return Array.from(name, (byte) => {
    const character = String.fromCharCode(byte);
    if (/[A-Za-z0-9._~-]/.test(character)) return character;
    return `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }).join("");
}
