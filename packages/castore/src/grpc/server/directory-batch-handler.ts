import type { ServiceImpl } from "@connectrpc/connect";
import {
  DirectoryBatchService as DirectoryBatchServiceDescriptor,
  GetDirectoriesResponse_EntrySchema,
  GetDirectoriesResponseSchema,
} from "@tvix/proto/castore";
import type { DirectoryService } from "../../directoryservice/directory-service.ts";
import { directoryBytes } from "../../directoryservice/encoded-directory.ts";
import { B3Digest } from "../../model/digest.ts";
import type { Directory } from "../../model/directory.ts";
import { MAX_BATCH_BLOBS } from "../../model/limits.ts";
import { toConnectError } from "../transport/connect-error.ts";
import { encodedStream } from "../transport/encoded-method.ts";
import { type BytesField, encodeFields } from "../transport/frames.ts";
import { expectAtMost } from "./expect-at-most.ts";

const METHODS = DirectoryBatchServiceDescriptor.method;
const ENTRIES = GetDirectoriesResponseSchema.field.entries.number;
const DIRECTORY = GetDirectoriesResponse_EntrySchema.field.directory.number;

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

    get: encodedStream(METHODS.get, async function* ({ digests }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, digests.length, "directories");
        const wanted = digests.map(B3Digest.fromBytes);
        for (let at = 0; at < wanted.length; at += PER_MESSAGE) {
          const part = wanted.slice(at, at + PER_MESSAGE);
          const found = await directoryService.getMany(part, { signal });
          yield [encodeFields(found.map(entryOf))];
        }
      } catch (error) {
        throw toConnectError(error);
      }
    }),
  };
}

function entryOf(directory: Directory | undefined): BytesField {
  const fields: BytesField[] =
    directory === undefined ? [] : [[DIRECTORY, directoryBytes(directory)]];
  return [ENTRIES, encodeFields(fields)];
}
