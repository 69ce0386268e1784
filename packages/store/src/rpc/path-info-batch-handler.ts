import type { ServiceImpl } from "@connectrpc/connect";
import { encodedStream, toRpcError } from "@tvix/castore/rpc";
import { PathInfoBatchService as PathInfoBatchServiceDescriptor } from "@tvix/proto/store";
import { encodePathInfo } from "../convert.ts";
import { StoreError } from "../errors.ts";
import type { PathInfoService } from "../pathinfoservice/path-info-service.ts";

const METHODS = PathInfoBatchServiceDescriptor.method;

/** How many hash parts one call may look up, and how many of them are held at a time. */
const MAX_HASH_PARTS = 16_384;
const HELD = 256;

/** Serves batched lookups, and listings from a cursor, of a PathInfo service. */
export function pathInfoBatchHandler(
  pathInfoService: PathInfoService,
): ServiceImpl<typeof PathInfoBatchServiceDescriptor> {
  return {
    get: encodedStream(
      METHODS.get,
      async function* ({ hashParts }, { signal }) {
        try {
          if (hashParts.length > MAX_HASH_PARTS) {
            const reason = `expected at most ${MAX_HASH_PARTS} hash parts, found ${hashParts.length}`;
            throw new StoreError("invalid_argument", `Cannot get PathInfos: ${reason}`);
          }
          for (let at = 0; at < hashParts.length; at += HELD) {
            const part = hashParts.slice(at, at + HELD);
            const found = await pathInfoService.getMany(part, { signal });
            yield found.map((pathInfo) => pathInfo && encodePathInfo(pathInfo));
          }
        } catch (error) {
          throw toRpcError(error);
        }
      },
      { isField: true },
    ),

    list: encodedStream(
      METHODS.list,
      async function* ({ after }, { signal }) {
        try {
          const cursor = after.length > 0 ? after : undefined;
          for await (const page of pathInfoService.listPages({ after: cursor, signal })) {
            yield page.encoded();
          }
        } catch (error) {
          throw toRpcError(error);
        }
      },
      { isField: true },
    ),
  };
}
