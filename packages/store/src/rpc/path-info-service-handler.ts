import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { anonymousNodeFromProto } from "@tvix/castore";
import { toConnectError } from "@tvix/castore/rpc";
import type { PathInfoService as PathInfoServiceDescriptor } from "@tvix/proto/store";
import { pathInfoFromProto, pathInfoToProto } from "../convert.ts";
import type { NarCalculationService } from "../nar/nar-calculation-service.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import type { PathInfoService } from "../pathinfoservice/path-info-service.ts";

/** Serves a PathInfo service and a NAR calculation service. */
export function pathInfoServiceHandler(
  pathInfoService: PathInfoService,
  narCalculationService: NarCalculationService,
): ServiceImpl<typeof PathInfoServiceDescriptor> {
  return {
    async get({ byWhat }, { signal }) {
      try {
        if (byWhat.case !== "byOutputHash") {
          throw new ConnectError("Cannot get a PathInfo: no hash part given", Code.InvalidArgument);
        }
        const pathInfo = await pathInfoService.get(byWhat.value, { signal });
        if (pathInfo === undefined) {
          throw new ConnectError(
            `PathInfo of ${encodeNixbase32(byWhat.value)} not found`,
            Code.NotFound,
          );
        }
        return pathInfoToProto(pathInfo);
      } catch (error) {
        throw toConnectError(error);
      }
    },

    async put(message, { signal }) {
      try {
        return pathInfoToProto(await pathInfoService.put(pathInfoFromProto(message), { signal }));
      } catch (error) {
        throw toConnectError(error);
      }
    },

    async calculateNAR(message, { signal }) {
      try {
        return await narCalculationService.calculateNar(anonymousNodeFromProto(message), {
          signal,
        });
      } catch (error) {
        throw toConnectError(error);
      }
    },

    async *list(_request, { signal }) {
      try {
        for await (const pathInfo of pathInfoService.list({ signal })) {
          yield pathInfoToProto(pathInfo);
        }
      } catch (error) {
        throw toConnectError(error);
      }
    },
  };
}
