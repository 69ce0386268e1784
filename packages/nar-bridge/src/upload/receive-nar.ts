import { createHash, hash } from "node:crypto";
import {
  type AbortOptions,
  type BlobService,
  type Compression,
  compressionOf,
  type DirectoryService,
  decompressSmall,
  detectCompression,
  equalBytes,
} from "@tvix/castore";
import { encodeNixbase32, ingestNar, readSmallNar, type SmallNar } from "@tvix/store";
import { HttpError } from "../http-error.ts";
import type { PushedNar } from "../pushed-nar.ts";
import type { NarName } from "./nar-name.ts";
import { atMost, decompressed } from "./request-body.ts";

/** Where the contents of a NAR go, and how long it may be. */
export interface ReceiveNarOptions extends AbortOptions {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
  /** Longest NAR in a compressed file, in bytes. */
  readonly maxBytes: number;
}

/**
 * Stores the contents of a NAR that a client pushes, in one pass.
 *
 * @param body the file as it comes, as its name says compressed or not
 * @returns what is known about it, once everything is durable
 * @throws HttpError 400 for a file that is damaged, no NAR, or not the one of its name, 413 for one that is too long;
 *   whatever `body` and the services throw. None of its directories is visible then, blobs may be
 */
export async function receiveNar(
  name: NarName,
  body: AsyncIterable<Uint8Array>,
  options: ReceiveNarOptions,
): Promise<PushedNar> {
  if (name.compression !== undefined) {
    return await receiveCompressed(name, name.compression, body, options);
  }
  const { compression, stream } = await detectCompression(body);
  if (compression !== undefined) {
    return await receiveCompressed(name, compression, stream, options);
  }
  const nar = await ingestNar(stream, options, {
    signal: options.signal,
    check: ({ narSha256 }) => expectHash(name, narSha256, narSha256),
  });
  return { ...nar, compression: "none", fileSha256: nar.narSha256, fileSize: nar.narSize };
}

/** A NAR that a client pushes, read and not stored. */
export interface SmallUpload {
  readonly nar: PushedNar;
  readonly tree: SmallNar;
}

/**
 * Reads a NAR that a client pushes and all of which has come. Nothing is stored.
 *
 * @param file the file, as its name says compressed or not
 * @returns `undefined` where reading it takes long, or it cannot be decompressed: {@link receiveNar} tells why
 * @throws HttpError 400 for a file that is not the one of its name, StoreError `invalid_argument` for one that is no NAR
 */
export async function readSmallUpload(
  name: NarName,
  file: Uint8Array,
  { maxBytes }: Pick<ReceiveNarOptions, "maxBytes">,
): Promise<SmallUpload | undefined> {
  const compression = name.compression ?? compressionOf(file);
  const contents = compression === undefined ? file : await decompressSmall(file, compression);
  if (contents === undefined || contents.length > maxBytes) return undefined;
  const tree = await readSmallNar(contents);
  const { node, narSize, narSha256 } = tree;
  const fileSha256 = compression === undefined ? narSha256 : hash("sha256", file, "buffer");
  expectHash(name, fileSha256, narSha256);
  const fileSize = BigInt(file.length);
  const nar = { node, narSize, narSha256, fileSha256, fileSize };
  return { nar: { ...nar, compression: compression ?? "none" }, tree };
}

async function receiveCompressed(
  name: NarName,
  compression: Compression,
  body: AsyncIterable<Uint8Array>,
  options: ReceiveNarOptions,
): Promise<PushedNar> {
  const { blobService, maxBytes, signal } = options;
  // bzip2 cannot be written without compressing, so a file of it is kept to be served again.
  await using copy = compression === "bzip2" ? blobService.openWriter({ signal }) : undefined;
  const fileHash = createHash("sha256");
  let fileSize = 0;
  let fileSha256: Uint8Array | undefined;
  const file = async function* () {
    for await (const data of body) {
      fileHash.update(data);
      fileSize += data.length;
      await copy?.write(data);
      yield data;
    }
    fileSha256 = fileHash.digest();
  };
  const quoted = `"${name.text}"`;
  const contents = atMost(decompressed(file(), compression, { name: quoted, signal }), {
    name: `the NAR in ${quoted}`,
    maxBytes,
  });
  const nar = await ingestNar(contents, options, {
    signal,
    check: ({ narSha256 }) => expectHash(name, fileSha256!, narSha256),
  });
  return {
    ...nar,
    compression,
    fileSha256: fileSha256!,
    fileSize: BigInt(fileSize),
    ...(copy && { file: await copy.close() }),
  };
}

/** Checks that the hash in the name of a file is that of the file, or of the NAR in it. */
function expectHash(name: NarName, fileSha256: Uint8Array, narSha256: Uint8Array): void {
  if (equalBytes(name.sha256, fileSha256) || equalBytes(name.sha256, narSha256)) return;
  const [file, nar] = [fileSha256, narSha256].map((hash) => `sha256:${encodeNixbase32(hash)}`);
  throw new HttpError(
    400,
    `Cannot store "${name.text}": expected the hash of the file or of the NAR in its name, found file ${file}, NAR ${nar}`,
  );
}
