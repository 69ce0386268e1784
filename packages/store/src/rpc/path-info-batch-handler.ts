import type { ServiceImpl } from "@connectrpc/connect";
import { toConnectError } from "@tvix/castore/rpc";
import type { PathInfoBatchService as PathInfoBatchServiceDescriptor } from "@tvix/proto/store";
import { pathInfoToProto } from "../convert.ts";
import { StoreError } from "../errors.ts";
import type { PathInfoService } from "../pathinfoservice/path-info-service.ts";

/** How many hash parts one call may look up, and how many of them are held at a time. */
const MAX_HASH_PARTS = 16_384;
const HELD = 256;

/** Serves batched lookups, and listings from a cursor, of a PathInfo service. */
export function pathInfoBatchHandler(
  pathInfoService: PathInfoService,
): ServiceImpl<typeof PathInfoBatchServiceDescriptor> {
  return {
    async *get({ hashParts }, { signal }) {
      try {
        if (hashParts.length > MAX_HASH_PARTS) {
          const reason = `expected at most ${MAX_HASH_PARTS} hash parts, found ${hashParts.length}`;
          throw new StoreError("invalid_argument", `Cannot get PathInfos: ${reason}`);
        }
        for (let at = 0; at < hashParts.length; at += HELD) {
          const part = hashParts.slice(at, at + HELD);
          for (const pathInfo of await pathInfoService.getMany(part, { signal })) {
            yield pathInfo ? { pathInfo: pathInfoToProto(pathInfo) } : {};
          }
        }
      } catch (error) {
        throw toConnectError(error);
      }
    },

    async *list({ after }, { signal }) {
      try {
        const cursor = after.length > 0 ? after : undefined;
        for await (const pathInfo of pathInfoService.list({ after: cursor, signal })) {
          yield { pathInfo: pathInfoToProto(pathInfo) };
        }
      } catch (error) {
        throw toConnectError(error);
      }
    },
  };
}
