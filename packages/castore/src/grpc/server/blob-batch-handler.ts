import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type BlobBatchService as BlobBatchServiceDescriptor,
  ReadBlobsResponse_BlobSchema,
} from "@tvix/proto/castore";
import type { BlobService } from "../../blobservice/blob-service.ts";
import { B3Digest } from "../../model/digest.ts";
import { CastoreError } from "../../model/errors.ts";
import { MAX_BATCH_BLOBS, MAX_BATCH_BYTES } from "../../model/limits.ts";
import { toConnectError } from "../transport/connect-error.ts";

/** Serves a blob service in batches. */
export function blobBatchHandler(
  blobService: BlobService,
): ServiceImpl<typeof BlobBatchServiceDescriptor> {
  return {
    async has({ digests }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, digests.length, "blobs");
        const present = await blobService.hasMany(digests.map(B3Digest.fromBytes), { signal });
        return { present: [...present] };
      } catch (error) {
        throw toConnectError(error);
      }
    },

    async read({ blobs }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, blobs.length, "blobs");
        const wanted = blobs.map(({ digest, size }) => ({
          digest: B3Digest.fromBytes(digest),
          size: Number(size),
        }));
        expectAtMost(MAX_BATCH_BYTES, totalOf(wanted.map(({ size }) => size)), "bytes");
        const contents = await blobService.readMany(wanted, { signal });
        return {
          blobs: contents.map((contents) =>
            create(ReadBlobsResponse_BlobSchema, contents ? { present: true, contents } : {}),
          ),
        };
      } catch (error) {
        throw toConnectError(error);
      }
    },

    async put({ contents }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, contents.length, "blobs");
        expectAtMost(MAX_BATCH_BYTES, totalOf(contents.map(({ length }) => length)), "bytes");
        const digests = await blobService.putMany(contents, { signal });
        return { digests: digests.map(({ bytes }) => bytes) };
      } catch (error) {
        throw toConnectError(error);
      }
    },
  };
}

function totalOf(sizes: readonly number[]): number {
  return sizes.reduce((sum, size) => sum + size, 0);
}

function expectAtMost(limit: number, found: number, what: string): void {
  if (found <= limit) return;
  throw new CastoreError(
    "invalid_argument",
    `Cannot take a batch: expected at most ${limit} ${what}, found ${found}`,
  );
}
