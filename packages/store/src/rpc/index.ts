import type { ServedService } from "@tvix/castore/rpc";
import { PathInfoService as PathInfoServiceDescriptor } from "@tvix/proto/store";
import type { NarCalculationService } from "../nar/nar-calculation-service.ts";
import type { PathInfoService } from "../pathinfoservice/path-info-service.ts";
import { pathInfoServiceHandler } from "./path-info-service-handler.ts";

/** PathInfos as they are served: `tvix.store.v1`. */
export function storeServices(services: {
  pathInfoService: PathInfoService;
  narCalculationService: NarCalculationService;
}): readonly ServedService[] {
  const { pathInfoService, narCalculationService } = services;
  return [
    {
      service: PathInfoServiceDescriptor,
      implementation: pathInfoServiceHandler(pathInfoService, narCalculationService),
    },
  ];
}
