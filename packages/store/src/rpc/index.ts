import type { ConnectRouter } from "@connectrpc/connect";
import { PathInfoService as PathInfoServiceDescriptor } from "@tvix/proto/store";
import type { NarCalculationService } from "../nar/nar-calculation-service.ts";
import type { PathInfoService } from "../pathinfoservice/path-info-service.ts";
import { pathInfoServiceHandler } from "./path-info-service-handler.ts";

/** Serves PathInfos as `tvix.store.v1`. */
export function registerStoreServices(
  router: ConnectRouter,
  services: { pathInfoService: PathInfoService; narCalculationService: NarCalculationService },
): void {
  const { pathInfoService, narCalculationService } = services;
  router.service(
    PathInfoServiceDescriptor,
    pathInfoServiceHandler(pathInfoService, narCalculationService),
  );
}
