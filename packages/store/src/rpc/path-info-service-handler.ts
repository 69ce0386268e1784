import { Code, type ServiceImpl } from "@connectrpc/connect";
import { anonymousNodeFromProto } from "@tvix/castore";
import { encodedStream, encodedUnary, RpcError, toRpcError } from "@tvix/castore/rpc";
import { PathInfoService as PathInfoServiceDescriptor } from "@tvix/proto/store";
import { encodePathInfo, pathInfoFromProto } from "../convert.ts";
import type { NarCalculationService } from "../nar/nar-calculation-service.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import type { PathInfoService } from "../pathinfoservice/path-info-service.ts";

const METHODS = PathInfoServiceDescriptor.method;

/** Serves a PathInfo service and a NAR calculation service. */
export function pathInfoServiceHandler(
  pathInfoService: PathInfoService,
  narCalculationService: NarCalculationService,
): ServiceImpl<typeof PathInfoServiceDescriptor> {
  return {
    get: encodedUnary(METHODS.get, async ({ byWhat }, { signal }) => {
      try {
        if (byWhat.case !== "byOutputHash") {
          throw new RpcError(Code.InvalidArgument, "Cannot get a PathInfo: no hash part given");
        }
        const pathInfo = await pathInfoService.get(byWhat.value, { signal });
        if (pathInfo === undefined) {
          throw new RpcError(
            Code.NotFound,
            `PathInfo of ${encodeNixbase32(byWhat.value)} not found`,
          );
        }
        return encodePathInfo(pathInfo);
      } catch (error) {
        throw toRpcError(error);
      }
    }),

    put: encodedUnary(METHODS.put, async (message, { signal }) => {
      try {
        return encodePathInfo(await pathInfoService.put(pathInfoFromProto(message), { signal }));
      } catch (error) {
        throw toRpcError(error);
      }
    }),

    async calculateNAR(message, { signal }) {
      try {
        return await narCalculationService.calculateNar(anonymousNodeFromProto(message), {
          signal,
        });
      } catch (error) {
        throw toRpcError(error);
      }
    },

    list: encodedStream(METHODS.list, async function* (_request, { signal }) {
      try {
        for await (const page of pathInfoService.listPages({ signal })) yield page.encoded();
      } catch (error) {
        throw toRpcError(error);
      }
    }),
  };
}
