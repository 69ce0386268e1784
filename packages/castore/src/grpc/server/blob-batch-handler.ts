import { create } from "@bufbuild/protobuf";
import { Code, type ServiceImpl } from "@connectrpc/connect";
import {
  type BlobBatchService as BlobBatchServiceDescriptor,
  ListChunksResponseSchema,
  type PutFramesRequest_Part,
  type PutListRequest,
  type ReadBlobsRequest,
  ReadBlobsResponse_BlobSchema,
  ReadFramesResponseSchema,
  StatBlobsResponse_BlobSchema,
} from "@tvix/proto/castore";
import type { BlobService, StoredBlob, UploadPart } from "../../blobservice/blob-service.ts";
import { ChunkList, ChunkListBuilder, type ChunkMeta } from "../../blobservice/chunk-list.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { mapSome } from "../../bytes/map-some.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_BATCH_BLOBS, MAX_BATCH_BYTES, MAX_LIST_CHUNKS } from "../../model/limits.ts";
import type { EncodedMessage } from "../transport/direct-methods.ts";
import { RpcError, toRpcError } from "../transport/rpc-error.ts";
import { expectWholeUpload } from "./blob-service-handler.ts";
import { EachRead } from "./each-read.ts";
import { expectAtMost } from "./expect-at-most.ts";
import { encodeReadResponse } from "./read-response.ts";

/** How many bytes of a list of chunks go into one message. */
const LIST_PIECE_BYTES = 4096 * ChunkList.ENTRY_BYTES;

/** Length of the name of an upload in bytes. */
const UPLOAD_NAME_BYTES = 16;

/** Serves a blob service in batches. */
export function blobBatchHandler(blobService: BlobService): {
  implementation: ServiceImpl<typeof BlobBatchServiceDescriptor>;
  encoders: {
    read(request: ReadBlobsRequest, options: AbortOptions): Promise<EncodedMessage | undefined>;
  };
} {
  const readBlobs = async (
    { blobs, frames }: ReadBlobsRequest,
    { signal }: AbortOptions,
  ): Promise<readonly (StoredBlob | undefined)[]> => {
    try {
      expectAtMost(MAX_BATCH_BLOBS, blobs.length, "blobs");
      const most = blobs.map(({ size, maxSize }) => Number(size) + Number(maxSize));
      expectAtMost(MAX_BATCH_BYTES, totalOf(most), "bytes");
      const sizes = await sizesOf(blobs, { signal });
      return await mapSome(
        blobs,
        ({ digest }, i) => {
          const size = sizes[i];
          return size === undefined ? undefined : { digest: B3Digest.fromBytes(digest), size };
        },
        (wanted) => readStored(wanted, frames, { signal }),
      );
    } catch (error) {
      throw toRpcError(error);
    }
  };
  /** The length of each of many blobs that are asked for; `undefined` for one that is absent, or longer than wanted. */
  const sizesOf = async (
    blobs: ReadBlobsRequest["blobs"],
    options: AbortOptions,
  ): Promise<readonly (number | undefined)[]> => {
    const stats = await mapSome(
      blobs,
      ({ digest, maxSize }) => (maxSize > 0n ? B3Digest.fromBytes(digest) : undefined),
      (digests) => blobService.statMany(digests, options),
    );
    return blobs.map(({ size, maxSize }, i) => {
      if (maxSize === 0n) return Number(size);
      const found = stats[i]?.size;
      return found !== undefined && found <= maxSize ? found : undefined;
    });
  };
  const readStored = async (
    blobs: readonly ChunkMeta[],
    asFrames: boolean,
    options: AbortOptions,
  ): Promise<readonly (StoredBlob | undefined)[]> => {
    const stored = asFrames ? await blobService.readManyStored?.(blobs, options) : undefined;
    if (stored !== undefined) return stored;
    const found = await blobService.readMany(blobs, options);
    return found.map((contents) => contents && { contents });
  };
  const implementation: ServiceImpl<typeof BlobBatchServiceDescriptor> = {
    async has({ digests }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, digests.length, "blobs");
        const present = await blobService.hasMany(digests.map(B3Digest.fromBytes), { signal });
        return { present: [...present] };
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async stat({ digests }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, digests.length, "blobs");
        const found = await blobService.statMany(digests.map(B3Digest.fromBytes), { signal });
        const blobs = found.map((stat) =>
          create(
            StatBlobsResponse_BlobSchema,
            stat && { present: true, size: BigInt(stat.size), chunks: BigInt(stat.chunks) },
          ),
        );
        return { blobs };
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async read(request, options) {
      const blobs = await readBlobs(request, options);
      return {
        blobs: blobs.map((blob) =>
          create(ReadBlobsResponse_BlobSchema, blob ? { present: true, ...blob } : {}),
        ),
      };
    },

    async *readEach(requests) {
      const read = async (blob: ChunkMeta, options: AbortOptions) => {
        const [stored] = await readStored([blob], true, options);
        return stored;
      };
      try {
        yield* new EachRead(read).responses(requests);
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async put({ contents }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, contents.length, "blobs");
        expectAtMost(MAX_BATCH_BYTES, totalOf(contents.map(({ length }) => length)), "bytes");
        const digests = await blobService.putMany(contents, { signal });
        return { digests: digests.map(({ bytes }) => bytes) };
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async *listChunks(request, { signal }) {
      try {
        const digest = B3Digest.fromBytes(request.digest);
        await using reader = await blobService.open(digest, { signal });
        if (reader === undefined) {
          throw new RpcError(Code.NotFound, `Blob ${digest} not found`);
        }
        const { bytes } = reader.chunks;
        for (let at = 0; at < bytes.length; at += LIST_PIECE_BYTES) {
          const chunks = bytes.subarray(at, at + LIST_PIECE_BYTES);
          yield create(ListChunksResponseSchema, { chunks });
        }
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async putList(messages, { signal }) {
      try {
        const { digest, chunks, upload } = await takeList(messages);
        await expectWholeUpload(signal);
        await blobService.putList(digest, chunks, { signal, upload }); // never proven: the service hashes it
        return {};
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async putFrames(request, { signal }) {
      try {
        if (!blobService.keepsFrames) {
          const reason = "the blob store would decompress them, put contents";
          throw new RpcError(Code.Unimplemented, `Cannot put frames: ${reason}`);
        }
        const chunks = asked(() => ChunkList.fromBytes(request.chunks));
        expectAtMost(MAX_BATCH_BLOBS, chunks.length + request.blobs.length, "chunks and blobs");
        if (chunks.length > 1) expectAtMost(MAX_BATCH_BYTES, chunks.size, "bytes");
        const blobs = request.blobs.map(({ digest, chunks }) => ({
          digest: B3Digest.fromBytes(digest),
          chunks: asked(() => ChunkList.fromBytes(chunks)),
        }));
        const part = request.part && takePart(request.part);
        await blobService.putFrames({ chunks, frames: request.frames, blobs, part }, { signal });
        return {};
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async *readFrames(request, { signal }) {
      try {
        const chunks = asked(() => ChunkList.fromBytes(request.chunks));
        expectAtMost(MAX_BATCH_BLOBS, chunks.length, "chunks");
        for await (const frame of blobService.frames(chunks, { signal })) {
          yield create(ReadFramesResponseSchema, { frame });
        }
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async frameSizes(request, { signal }) {
      try {
        if (blobService.frameSizes === undefined) {
          const reason = "the blob store keeps none, or cannot measure them";
          throw new RpcError(Code.Unimplemented, `Cannot tell the lengths of frames: ${reason}`);
        }
        const chunks = asked(() => ChunkList.fromBytes(request.chunks));
        expectAtMost(MAX_BATCH_BLOBS, chunks.length, "chunks");
        return { sizes: [...(await blobService.frameSizes(chunks, { signal }))] };
      } catch (error) {
        throw toRpcError(error);
      }
    },
  };
  return {
    implementation,
    encoders: {
      read: async (request, options) => encodeReadResponse(await readBlobs(request, options)),
    },
  };
}

function totalOf(sizes: readonly number[]): number {
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Reads the list of a blob that is to be put. */
async function takeList(
  messages: AsyncIterable<PutListRequest>,
): Promise<{ digest: B3Digest; chunks: ChunkList; upload: Uint8Array | undefined }> {
  let digest: B3Digest | undefined;
  let upload: Uint8Array | undefined;
  const builder = new ChunkListBuilder();
  for await (const message of messages) {
    if (digest === undefined) {
      digest = B3Digest.fromBytes(message.digest);
      if (message.upload.length > 0) upload = uploadName(message.upload);
    }
    asked(() => builder.append(message.chunks));
    expectAtMost(MAX_LIST_CHUNKS, builder.length, "chunks");
  }
  if (digest !== undefined) return { digest, chunks: builder.finish(), upload };
  throw new CastoreError("invalid_argument", "Cannot put a list of chunks: no digest given");
}

function takePart({ upload, offset }: PutFramesRequest_Part): UploadPart {
  if (offset <= BigInt(Number.MAX_SAFE_INTEGER)) {
    return { upload: uploadName(upload), offset: Number(offset) };
  }
  const reason = `expected an offset of at most ${Number.MAX_SAFE_INTEGER}, found ${offset}`;
  throw new CastoreError("invalid_argument", `Cannot take a part of an upload: ${reason}`);
}

function uploadName(bytes: Uint8Array): Uint8Array {
  if (bytes.length === UPLOAD_NAME_BYTES) return bytes;
  const reason = `expected a name of ${UPLOAD_NAME_BYTES} bytes, found ${bytes.length}`;
  throw new CastoreError("invalid_argument", `Cannot take a part of an upload: ${reason}`);
}

/** Takes a part of a request: what is wrong with it is the fault of whoever asks. */
function asked<T>(take: () => T): T {
  try {
    return take();
  } catch (cause) {
    if (!(cause instanceof CastoreError)) throw cause;
    throw new CastoreError("invalid_argument", cause.message, { cause });
  }
}
