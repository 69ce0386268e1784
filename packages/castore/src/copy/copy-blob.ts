import type { BlobReader, BlobService } from "../blobservice/blob-service.ts";
import type { ChunkList, ChunkMeta } from "../blobservice/chunk-list.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { B3Digest } from "../model/digest.ts";
import { CastoreError } from "../model/errors.ts";
import { sendFrames } from "./send-frames.ts";

/** How many chunks are looked up together. */
const CHUNKS_PER_LOOKUP = 1024;

/** How many bytes of chunks are sent together, unless one is longer. */
const BATCH_BYTES = 1024 * 1024;

/**
 * Copies a blob to another service, unless that has it. Chunks that the target has are not sent.
 *
 * @returns whether it was copied
 * @throws CastoreError `not_found` if the source does not have it, `data_loss` if it is damaged there; whatever the
 *   services throw. The target does not have the blob then, chunks of it may be there
 */
export async function copyBlob(
  from: BlobService,
  to: BlobService,
  digest: B3Digest,
  options?: AbortOptions,
): Promise<boolean> {
  if (await to.has(digest, options)) return false;
  await copyAbsentBlob(from, to, { digest }, options);
  return true;
}

/**
 * Copies a blob that the target is known to lack, as {@link copyBlob} does.
 *
 * @param blob.size how many bytes it should have. Default: any number
 * @throws CastoreError `data_loss` if it has another length
 */
export async function copyAbsentBlob(
  from: BlobService,
  to: BlobService,
  { digest, size }: { readonly digest: B3Digest; readonly size?: number },
  options?: AbortOptions,
): Promise<void> {
  await using reader = await from.open(digest, options);
  if (reader === undefined) throw refusal("not_found", digest, "it is missing");
  if (size !== undefined && reader.size !== size) {
    throw refusal("data_loss", digest, `expected ${size} bytes, found ${reader.size}`);
  }
  const { chunks } = reader;
  const lacks = await lackedChunks(to, chunks, options);
  // Who keeps frames takes them also of a blob of which it has nothing, and then proves the list.
  const isByChunks = lacks.includes(0) || to.keepsFrames === true;
  const isSent = isByChunks && (await sendChunks(from, to, chunks, lacks, options));
  if (isSent) await to.putList(digest, chunks, options);
  else await sendStream(from, to, reader, options);
}

/** Finds out which chunks a target lacks. Returns 1 for each that is to be sent, else 0: equal ones are sent once. */
async function lackedChunks(
  to: BlobService,
  chunks: ChunkList,
  options?: AbortOptions,
): Promise<Uint8Array> {
  const lacks = new Uint8Array(chunks.length);
  if (chunks.length === 1) return lacks.fill(1); // that is the blob itself
  const sent = new Set<string>();
  for (let at = 0; at < chunks.length; at += CHUNKS_PER_LOOKUP) {
    const length = Math.min(CHUNKS_PER_LOOKUP, chunks.length - at);
    const digests = Array.from({ length }, (_, i) => chunks.digestAt(at + i));
    const isThere = await to.hasMany(digests, options);
    for (const [i, { key }] of digests.entries()) {
      if (isThere[i] || sent.has(key)) continue;
      sent.add(key);
      lacks[at + i] = 1;
    }
  }
  return lacks;
}

/**
 * Sends those chunks that the target lacks, each batch while the next one is read.
 *
 * @returns `false` if the source gives one of them only as a part of the blob, or not at all
 */
async function sendChunks(
  from: BlobService,
  to: BlobService,
  chunks: ChunkList,
  lacks: Uint8Array,
  options?: AbortOptions,
): Promise<boolean> {
  let sending: Promise<unknown> = Promise.resolve();
  try {
    let isByFrames = true;
    for (const batch of batchesOf(chunks, lacks)) {
      isByFrames &&= await sendFrames(from, to, batch, options);
      if (isByFrames) continue;
      const contents = (await from.readMany(batch, options)).filter((data) => data !== undefined);
      if (contents.length < batch.length) return false;
      await sending;
      sending = to.putMany(contents, options);
      sending.catch(() => undefined); // it is awaited later
    }
    await sending;
    return true;
  } finally {
    await Promise.allSettled([sending]);
  }
}

function* batchesOf(chunks: ChunkList, lacks: Uint8Array): Generator<readonly ChunkMeta[]> {
  let batch: ChunkMeta[] = [];
  let bytes = 0;
  for (let i = lacks.indexOf(1); i >= 0; i = lacks.indexOf(1, i + 1)) {
    const chunk = chunks.at(i);
    if (batch.length > 0 && bytes + chunk.size > BATCH_BYTES) {
      yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push(chunk);
    bytes += chunk.size;
  }
  if (batch.length > 0) yield batch;
}

/** Sends a blob of which the target has nothing: it need not read back what was sent. */
async function sendStream(
  from: BlobService,
  to: BlobService,
  { digest, size }: BlobReader,
  options?: AbortOptions,
): Promise<void> {
  const stream = await from.read(digest, options);
  if (stream === undefined) throw refusal("not_found", digest, "it is missing");
  await using writer = to.openWriter(options);
  let sent = 0;
  for await (const data of stream) {
    sent += data.length;
    await writer.write(data);
  }
  if (sent !== size) throw refusal("data_loss", digest, `expected ${size} bytes, found ${sent}`);
  const stored = await writer.close();
  if (!stored.equals(digest)) throw refusal("data_loss", digest, `what was read is ${stored}`);
}

/** The error for a blob that cannot be copied. */
export function refusal(
  code: "data_loss" | "not_found",
  digest: B3Digest,
  reason: string,
): CastoreError {
  return new CastoreError(code, `Cannot copy blob ${digest}: ${reason}`);
}
