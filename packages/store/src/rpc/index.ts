import type { ServedService } from "@tvix/castore/rpc";
import {
  PathInfoBatchService as PathInfoBatchServiceDescriptor,
  PathInfoService as PathInfoServiceDescriptor,
} from "@tvix/proto/store";
import type { NarCalculationService } from "../nar/nar-calculation-service.ts";
import type { PathInfoService } from "../pathinfoservice/path-info-service.ts";
import { pathInfoBatchHandler } from "./path-info-batch-handler.ts";
import { pathInfoServiceHandler } from "./path-info-service-handler.ts";

/** Returns the gRPC services of PathInfos: `tvix.store.v1`, and batches of PathInfos. */
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
    {
      service: PathInfoBatchServiceDescriptor,
      implementation: pathInfoBatchHandler(pathInfoService),
    },
  ];
}
