import type { ConnectRouter } from "@connectrpc/connect";
import {
  BlobBatchService as BlobBatchServiceDescriptor,
  BlobService as BlobServiceDescriptor,
  DirectoryBatchService as DirectoryBatchServiceDescriptor,
  DirectoryService as DirectoryServiceDescriptor,
} from "@tvix/proto/castore";
import type { BlobService } from "../../blobservice/blob-service.ts";
import type { DirectoryService } from "../../directoryservice/directory-service.ts";
import type { ServedService } from "../transport/direct-methods.ts";
import { blobBatchHandler } from "./blob-batch-handler.ts";
import { blobServiceHandler } from "./blob-service-handler.ts";
import { directoryBatchHandler } from "./directory-batch-handler.ts";
import { directoryServiceHandler } from "./directory-service-handler.ts";

export { fromConnectError, toConnectError } from "../transport/connect-error.ts";
export { answerDirectly, type CallObserver, isDirect } from "../transport/direct-exchange.ts";
export {
  type DirectMethod,
  directMethods,
  type ServedService,
} from "../transport/direct-methods.ts";
export { Heartbeat, type HeartbeatOptions } from "../transport/heartbeat.ts";
export { cancelled, stopSender } from "../transport/http2-stream.ts";
export { RpcSpan } from "../transport/rpc-span.ts";

/** Blobs and directories as they are served: `tvix.castore.v1`, and batches of both. */
export function castoreServices(services: {
  blobService: BlobService;
  directoryService: DirectoryService;
}): readonly ServedService[] {
  const { blobService, directoryService } = services;
  return [
    { service: BlobServiceDescriptor, implementation: blobServiceHandler(blobService) },
    { service: BlobBatchServiceDescriptor, implementation: blobBatchHandler(blobService) },
    {
      service: DirectoryServiceDescriptor,
      implementation: directoryServiceHandler(directoryService),
    },
    {
      service: DirectoryBatchServiceDescriptor,
      implementation: directoryBatchHandler(directoryService),
    },
  ];
}

/** Registers services with Connect, which serves them over every protocol that it knows. */
export function registerServices(router: ConnectRouter, services: readonly ServedService[]): void {
  for (const { service, implementation } of services) router.service(service, implementation);
}
