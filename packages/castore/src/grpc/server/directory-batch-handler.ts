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
import { encodedStream } from "../transport/encoded-method.ts";
import { type BytesField, encodeFields } from "../transport/frames.ts";
import { toRpcError } from "../transport/rpc-error.ts";
import { expectAtMost } from "./expect-at-most.ts";

const METHODS = DirectoryBatchServiceDescriptor.method;
const ENTRIES = GetDirectoriesResponseSchema.field.entries.number;
const DIRECTORY = GetDirectoriesResponse_EntrySchema.field.directory.number;

/** How many directories are read at a time. */
const READ_AT_ONCE = 64;

/** They go into messages of about so many bytes, as some directories are as long as a message may be. */
const MESSAGE_BYTES = 256 * 1024;

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
        throw toRpcError(error);
      }
    },

    get: encodedStream(METHODS.get, async function* ({ digests }, { signal }) {
      try {
        expectAtMost(MAX_BATCH_BLOBS, digests.length, "directories");
        const wanted = digests.map(B3Digest.fromBytes);
        for (let at = 0; at < wanted.length; at += READ_AT_ONCE) {
          const part = wanted.slice(at, at + READ_AT_ONCE);
          // One that is asked for again and again is held once, however long it is.
          const unique = [...new Map(part.map((digest) => [digest.key, digest])).values()];
          const found = await directoryService.getMany(unique, { signal });
          const byKey = new Map(unique.map(({ key }, i) => [key, found[i]]));
          yield messagesOf(part.map(({ key }) => byKey.get(key)));
        }
      } catch (error) {
        throw toRpcError(error);
      }
    }),
  };
}

/** Encodes responses with the directories, in order. */
function* messagesOf(directories: readonly (Directory | undefined)[]): Generator<Uint8Array> {
  let entries: BytesField[] = [];
  let bytes = 0;
  for (const directory of directories) {
    const entry = encodeFields(directory ? [[DIRECTORY, directoryBytes(directory)]] : []);
    if (bytes + entry.length > MESSAGE_BYTES && entries.length > 0) {
      yield encodeFields(entries);
      entries = [];
      bytes = 0;
    }
    entries.push([ENTRIES, entry]);
    bytes += entry.length;
  }
  yield encodeFields(entries);
}
