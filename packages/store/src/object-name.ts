import { B3Digest, type PathComponent, pathComponent, quoteBytes } from "@tvix/castore";
import { inContext, StoreError } from "./errors.ts";
import { decodeNixbase32, encodeNixbase32 } from "./nix/nixbase32.ts";
import { STORE_DIR, StorePath } from "./nix/store-path.ts";

/** The root of a tree in a store, by one of its names. */
export type RootName =
  | { readonly type: "store path"; readonly storePath: StorePath }
  | {
      readonly type: "hash part";
      /** 20 bytes. */
      readonly hashPart: Uint8Array;
    }
  | {
      readonly type: "digest";
      /** The digest of a directory or a blob. */
      readonly digest: B3Digest;
    };

/** The name of something in a store: a root, and a path below it. */
export interface ObjectName {
  readonly root: RootName;
  /** Empty for the root itself. */
  readonly path: readonly PathComponent[];
}

const HASH_PART_CHARACTERS = 32;

/** A digest at the start of a text, in hexadecimal digits or base64. The latter may contain slashes. */
const DIGEST = /^b3:(?:[0-9a-f]{64}|[0-9a-z+/]{43}=)(?=\/|$)/i;

const FORMS = `"${STORE_DIR}/HASH-NAME", "HASH-NAME", "HASH" (${HASH_PART_CHARACTERS} characters of nixbase32) or "b3:DIGEST"`;

/**
 * Parses the name of something in a store: the absolute path of a store path, its base name, its hash part alone, or `b3:`
 * and the digest of a directory or a blob; each may go on with the path of something below it. The path is bytes, not
 * text. Repeated slashes count as one, a slash at the end and names `.` are dropped.
 *
 * @throws StoreError `invalid_argument` for anything else, and for `..` in the path
 */
export function parseObjectName(name: Uint8Array): ObjectName {
  const text = Buffer.from(name).toString("latin1"); // one character for each byte
  const [digest] = DIGEST.exec(text) ?? [];
  if (digest !== undefined) {
    const rest = text.slice(digest.length);
    return {
      root: { type: "digest", digest: B3Digest.parse(digest) },
      path: parsePath(name, rest.split("/")),
    };
  }
  const [, below = text] = new RegExp(`^${STORE_DIR}/+(.*)`, "s").exec(text) ?? [];
  const [first = "", ...rest] = below.split("/");
  return { root: parseRoot(name, first), path: parsePath(name, rest) };
}

/** Formats a name as {@link parseObjectName} reads it. */
export function formatObjectName({ root, path }: ObjectName): string {
  return [formatRoot(root), ...path.map((name) => Buffer.from(name).toString())].join("/");
}

function formatRoot(root: RootName): string {
  switch (root.type) {
    case "store path":
      return root.storePath.toAbsolutePath();
    case "hash part":
      return encodeNixbase32(root.hashPart);
    case "digest":
      return `${root.digest}`;
  }
}

function parseRoot(name: Uint8Array, first: string): RootName {
  if (first.length === HASH_PART_CHARACTERS) {
    const hashPart = inContext(context(name), () => decodeNixbase32(first));
    return { type: "hash part", hashPart };
  }
  if (first[HASH_PART_CHARACTERS] !== "-") {
    throw new StoreError(
      "invalid_argument",
      `${context(name)}: expected ${FORMS}, and a path below it if need be`,
    );
  }
  return { type: "store path", storePath: inContext(context(name), () => StorePath.parse(first)) };
}

/** @param names one character for each byte */
function parsePath(name: Uint8Array, names: readonly string[]): PathComponent[] {
  const path = names.filter((part) => part !== "" && part !== ".");
  if (path.includes("..")) {
    throw new StoreError("invalid_argument", `${context(name)}: expected a path without ".."`);
  }
  return inContext(context(name), () =>
    path.map((part) => pathComponent(new Uint8Array(Buffer.from(part, "latin1")))),
  );
}

function context(name: Uint8Array): string {
  return `Cannot find ${quoteBytes(name)} in a store`;
}
