import { createHash } from "node:crypto";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { type Compression, collectBytes } from "@tvix/castore";
import {
  encodeNixbase32,
  NarInfo,
  type NarInfoFields,
  narInfoFromPathInfo,
  nixHash,
  type PathInfo,
} from "@tvix/store";
import { StoredFile } from "../src/stored/stored-file.ts";
import { STORED_XZ } from "../src/stored/xz.ts";
import { hashOf, narOf, type Tree } from "./bridge-fixture.ts";

/** Compresses as clients do; bzip2 is not among what can be done here. */
const COMPRESS: Readonly<
  Record<Exclude<Compression, "bzip2"> | "none", (nar: Buffer) => Promise<Uint8Array>>
> = {
  none: async (nar) => nar,
  br: async (nar) => brotliCompressSync(nar),
  gzip: async (nar) => gzipSync(nar),
  async xz(nar) {
    const read = async function* ({ offset = 0, length = 0 }) {
      yield nar.subarray(offset, offset + length);
    };
    const file = new StoredFile(STORED_XZ, { size: nar.length, read });
    const all = { offset: 0, length: file.size };
    return await collectBytes(file.read(all, new AbortController().signal));
  },
  zstd: async (nar) => zstdCompressSync(nar),
};

/** How Nix ends the name of a file. */
const ENDING = { none: "", br: ".br", bzip2: ".bz2", gzip: "", xz: ".xz", zstd: ".zst" };

/** What a client pushes for a store path. */
export interface Push {
  readonly pathInfo: PathInfo;
  readonly nar: Buffer;
  /** Path of the NAR in the cache, such as `/nar/<hash>.nar.xz`, and the file there. */
  readonly narPath: string;
  readonly file: Uint8Array;
  /** Path of the narinfo, and its text. */
  readonly narInfoPath: string;
  readonly narInfo: string;
}

/** Makes what a client pushes for a tree. */
export async function pushOf(
  name: string,
  tree: Tree | string | Uint8Array,
  compression: keyof typeof COMPRESS = "none",
  changes: Partial<NarInfoFields> = {},
): Promise<Push> {
  const { pathInfo, nar } = await narOf(name, tree);
  const file = await COMPRESS[compression](nar);
  return pushOfFile(pathInfo, nar, file, compression, changes);
}

/** Makes what a client pushes whose NAR is compressed already. */
export function pushOfFile(
  pathInfo: PathInfo,
  nar: Buffer,
  file: Uint8Array,
  compression: Compression | "none",
  changes: Partial<NarInfoFields> = {},
): Push {
  const digest = createHash("sha256").update(file).digest();
  const narPath = `/nar/${encodeNixbase32(digest)}.nar${ENDING[compression]}`;
  const narInfo = narInfoFromPathInfo(pathInfo, {
    url: narPath.slice(1),
    compression,
    fileHash: nixHash("sha256", digest),
    fileSize: BigInt(file.length),
  });
  return {
    ...{ pathInfo, nar, narPath, file },
    narInfoPath: `/${hashOf(pathInfo)}.narinfo`,
    narInfo: NarInfo.from({ ...fieldsOf(narInfo), ...changes }).toString(),
  };
}

function fieldsOf(narInfo: NarInfo): NarInfoFields {
  const { storePath, url, compression, fileHash, fileSize, narSha256, narSize } = narInfo;
  const { references, deriver, signatures, ca } = narInfo;
  return {
    ...{ storePath, url, compression, fileHash, fileSize, narSha256, narSize },
    ...{ references, deriver, signatures, ca },
  };
}

/** Pushes a file, in one piece or, in chunks, without a length. */
export function put(
  url: string,
  body: string | Uint8Array | AsyncIterable<Uint8Array>,
  options: Pick<RequestInit, "headers" | "signal"> = {},
): Promise<Response> {
  const isWhole = typeof body === "string" || body instanceof Uint8Array;
  const request = {
    ...options,
    method: "PUT",
    body: isWhole ? body : ReadableStream.from(body),
    duplex: "half",
  };
  return fetch(url, request as RequestInit);
}
