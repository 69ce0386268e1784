import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type DirectoryBatchService as DirectoryBatchServiceDescriptor,
  GetDirectoriesResponse_EntrySchema,
  GetDirectoriesResponseSchema,
} from "@tvix/proto/castore";
import type { DirectoryService } from "../../directoryservice/directory-service.ts";
import { directoryToProto } from "../../model/convert.ts";
import { B3Digest } from "../../model/digest.ts";
import { MAX_BATCH_BLOBS } from "../../model/limits.ts";
import { toConnectError } from "../transport/connect-error.ts";
import { expectAtMost } from "./expect-at-most.ts";

/** How many directories are read at a time, which go into one message. */
const PER_MESSAGE = 64;

/** Serves a directory service in batches. */
export function directoryBatchHandler(
  directoryService: DirectoryService,
): ServiceImpl<typeof DirectoryBatchServiceDescriptor> {
  return {
    async has({ digests }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, digests.length, "directories");
        const present = await directoryService.hasMany(digests.map(B3Digest.fromBytes), { signal });
        return { present: [...present] };
      } catch (error) {
        throw toConnectError(error);
      }
    },

    async *get({ digests }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, digests.length, "directories");
        const wanted = digests.map(B3Digest.fromBytes);
        for (let at = 0; at < wanted.length; at += PER_MESSAGE) {
          const found = await directoryService.getMany(wanted.slice(at, at + PER_MESSAGE), {
            signal,
          });
          const entries = found.map((directory) =>
            create(
              GetDirectoriesResponse_EntrySchema,
              directory && { directory: directoryToProto(directory) },
            ),
          );
          yield create(GetDirectoriesResponseSchema, { entries });
        }
      } catch (error) {
        throw toConnectError(error);
      }
    },
  };
}
