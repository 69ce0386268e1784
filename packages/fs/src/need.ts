import type { PackedBytes } from "./packed-directory.ts";

/** Something that a request needs from the stores. Digests are strings of 32 characters U+0000 to U+00FF. */
export type Need =
  /** A store path, by its hash part and name. */
  | { readonly type: "path"; readonly key: string; readonly baseName: string }
  /** The store paths behind one, by its hash part: the next page of the root. */
  | { readonly type: "page"; readonly key: string; readonly after: Uint8Array | undefined }
  | { readonly type: "directory"; readonly key: string; readonly digest: string }
  /** The contents of a small file. */
  | {
      readonly type: "file";
      readonly key: string;
      readonly digest: string;
      /** Length that the directory states. */
      readonly size: number;
      readonly asContents?: true;
    }
  /** The list of chunks of a blob. */
  | { readonly type: "list"; readonly key: string; readonly digest: string; readonly size: number }
  /** One chunk of a blob. */
  | {
      readonly type: "chunk";
      readonly key: string;
      /** Digest of the blob. */
      readonly digest: string;
      /** Digest of the chunk. */
      readonly chunk: string;
      /** Where the chunk begins in the blob. */
      readonly offset: number;
      readonly length: number;
      /** Set where it came as it is stored, and that was wrong. */
      readonly asContents?: true;
    };

/** A need for contents. */
export type ContentsNeed = Need & { type: "file" | "chunk" };

/** Returns the length of contents in bytes. */
export function lengthOf(need: ContentsNeed): number {
  return need.type === "chunk" ? need.length : need.size;
}

/** A page of the root. */
export interface RootPage {
  readonly entries: PackedBytes;
  /** Hash part of the last store path; `undefined` on the last page. */
  readonly next: Uint8Array | undefined;
}

/** What a {@link Need} of each type is met with. */
export interface Supplies {
  /** A directory of one entry; `undefined` if there is no such store path. */
  readonly path: PackedBytes | undefined;
  readonly page: RootPage;
  readonly directory: PackedBytes;
  readonly file: Held;
  /** A packed `ChunkList`. */
  readonly list: Uint8Array;
  readonly chunk: Held;
}

/** Form of contents: verified, or as they are stored and not verified, plain or as a zstd frame. */
export type Form = "verified" | "stored" | "frame";

/** Contents in one of their forms. */
export interface Held {
  readonly bytes: Uint8Array;
  readonly form: Form;
}

/** The outcome of a need: what was fetched, or an errno. */
export type Answer =
  /** Contents are copied, and freed then. */
  | { readonly key: string; readonly supply: Supplies[Need["type"]] }
  | { readonly key: string; readonly errno: number };
