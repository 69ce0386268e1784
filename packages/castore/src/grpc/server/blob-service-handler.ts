import { setImmediate as yieldToEvents } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { Code, type ServiceImpl } from "@connectrpc/connect";
import {
  BlobChunkSchema,
  type BlobService as BlobServiceDescriptor,
  type StatBlobRequest,
} from "@tvix/proto/castore";
import pLimit from "p-limit";
import type { BlobService } from "../../blobservice/blob-service.ts";
import { ChunkList } from "../../blobservice/chunk-list.ts";
import { OutboardCache } from "../../blobservice/outboard-cache.ts";
import { outboardOf } from "../../blobservice/verified-range.ts";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { freeMemory } from "../../bytes/free-memory.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_MESSAGE_BYTES } from "../../model/limits.ts";
import type { EncodedMessage } from "../transport/direct-methods.ts";
import { RpcError, toRpcError } from "../transport/rpc-error.ts";
import { chunkMessages, encodeStatResponse } from "./stat-response.ts";

/** How many bytes of a blob go into one message. */
const MESSAGE_BYTES = 1024 * 1024;

/** How many bytes of outboards are remembered: those of 8 GB of blobs. */
const OUTBOARD_BYTES = 32 * 1024 * 1024;

/** How many of them are made at the same time, for each of which a blob is read and hashed. */
const MADE_AT_ONCE = 2;

/** The longest outboard that fits in a response, with its tag and length, in bytes. */
const MAX_OUTBOARD_BYTES = MAX_MESSAGE_BYTES - 16;

/** How many chunks fit in the response of a Stat, 42 bytes each at most. */
const MAX_STAT_CHUNKS = Math.floor(MAX_MESSAGE_BYTES / 42);

const NO_BYTES = new Uint8Array(0);
const NO_CHUNKS = ChunkList.of([]);

/** Serves a blob service. */
export function blobServiceHandler(blobService: BlobService): {
  implementation: ServiceImpl<typeof BlobServiceDescriptor>;
  encoders: {
    stat(request: StatBlobRequest, options: AbortOptions): Promise<EncodedMessage | undefined>;
  };
} {
  const limit = pLimit(MADE_AT_ONCE);
  const outboards = new OutboardCache(
    (digest, options) =>
      limit(() => outboardOf(blobService, digest, { ...options, maxBytes: MAX_OUTBOARD_BYTES })),
    OUTBOARD_BYTES,
  );
  /** How a blob is cut: none where it is not; `undefined` if there is no such blob. */
  const chunksOf = async (digest: B3Digest, options: AbortOptions) => {
    await using reader = await blobService.open(digest, options);
    if (reader === undefined) return undefined;
    if (reader.chunks.length > MAX_STAT_CHUNKS) {
      throw new CastoreError(
        "resource_exhausted",
        `Cannot list the chunks of blob ${digest} in one message: expected at most ${MAX_STAT_CHUNKS} chunks, ` +
          `found ${reader.chunks.length}; use ListChunks of BlobBatchService`,
      );
    }
    return reader.chunks.length > 1 ? reader.chunks : NO_CHUNKS;
  };
  const stat = async (request: StatBlobRequest, { signal }: AbortOptions) => {
    const digest = B3Digest.fromBytes(request.digest);
    const chunks = request.sendChunks ? await chunksOf(digest, { signal }) : NO_CHUNKS;
    const isThere = request.sendChunks ? chunks : await blobService.has(digest, { signal });
    if (!isThere || chunks === undefined) throw notFound(digest);
    const outboard = request.sendBao ? await outboards.get(digest, { signal }) : undefined;
    if (request.sendBao && outboard === undefined) throw notFound(digest);
    return { chunks, bao: outboard?.bytes ?? NO_BYTES };
  };
  const implementation: ServiceImpl<typeof BlobServiceDescriptor> = {
    async stat(request, { signal }) {
      try {
        const { chunks, bao } = await stat(request, { signal });
        return { chunks: await chunkMessages(chunks, { signal }), bao };
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async *read(request, { signal }) {
      try {
        const digest = B3Digest.fromBytes(request.digest);
        const stream = await blobService.read(digest, { signal });
        if (stream === undefined) throw notFound(digest);
        for await (const bytes of stream) {
          for (let at = 0; at < bytes.length; at += MESSAGE_BYTES) {
            yield create(BlobChunkSchema, { data: bytes.subarray(at, at + MESSAGE_BYTES) });
          }
        }
      } catch (error) {
        throw toRpcError(error);
      }
    },

    async put(messages, { signal }) {
      try {
        await using writer = blobService.openWriter({ signal });
        for await (const { data } of messages) {
          await writer.write(data);
          freeMemory([data]);
        }
        await expectWholeUpload(signal);
        const digest = await writer.close();
        return { digest: digest.bytes };
      } catch (error) {
        throw toRpcError(error);
      }
    },
  };
  return {
    implementation,
    encoders: {
      async stat(request, options) {
        if (!request.sendChunks) return undefined;
        try {
          const { chunks, bao } = await stat(request, options);
          return await encodeStatResponse(chunks, bao, options);
        } catch (error) {
          throw toRpcError(error);
        }
      },
    },
  };
}

/**
 * To be called when the messages of an upload have ended, before anything is stored: many clients end
 * the stream in good order an instant before they cancel it.
 */
export async function expectWholeUpload(signal: AbortSignal): Promise<void> {
  // The cancellation is often a packet of its own.
  for (let turn = 0; turn < 2; turn++) await yieldToEvents();
  signal.throwIfAborted();
}

function notFound(digest: B3Digest): RpcError {
  return new RpcError(Code.NotFound, `Blob ${digest} not found`);
}
