import { createRequire } from "node:module";

/** An incremental BLAKE3 computation. */
export interface Blake3Hasher {
  /** Adds bytes, without keeping them. */
  update(data: Uint8Array): void;
  /** Returns the 32-byte digest of all bytes added. Called once, last. */
  digest(): Uint8Array;
}

/** An implementation of BLAKE3. */
export interface Blake3 {
  readonly implementation: "native" | "portable";
  /** Returns the 32-byte digest of `data`. */
  hash(data: Uint8Array): Uint8Array;
  createHasher(): Blake3Hasher;
}

const require = createRequire(import.meta.url);

/** Loads the native implementation; `undefined` if there is none for this platform. */
export function loadNativeBlake3(): Blake3 | undefined {
  let native: typeof import("@napi-rs/blake-hash");
  try {
    native = require("@napi-rs/blake-hash");
  } catch {
    return undefined; // an optional dependency: absent or built for other platforms
  }
  return {
    implementation: "native",
    hash: (data) => native.blake3(data),
    createHasher() {
      const hasher = new native.Blake3Hasher();
      return { update: (data) => void hasher.update(data), digest: () => hasher.digestBuffer() };
    },
  };
}

/** Loads the WebAssembly implementation, which runs everywhere, about nine times slower. */
export function loadPortableBlake3(): Blake3 {
  const portable: typeof import("blake3") = require("blake3");
  return {
    implementation: "portable",
    hash: (data) => portable.hash(data) as Buffer,
    createHasher() {
      const hasher = portable.createHash();
      return { update: (data) => void hasher.update(data), digest: () => hasher.digest() };
    },
  };
}

/** The fastest implementation of BLAKE3 on this platform. */
export const blake3: Blake3 = loadNativeBlake3() ?? loadPortableBlake3();
