import type { ConnectRouter } from "@connectrpc/connect";
import {
  BlobService as BlobServiceDescriptor,
  DirectoryService as DirectoryServiceDescriptor,
} from "@tvix/proto/castore";
import type { BlobService } from "../blobservice/blob-service.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import { blobServiceHandler } from "./blob-service-handler.ts";
import { directoryServiceHandler } from "./directory-service-handler.ts";

export { fromConnectError, toConnectError } from "./connect-error.ts";

/** Serves blobs and directories as `tvix.castore.v1`. */
export function registerCastoreServices(
  router: ConnectRouter,
  services: { blobService: BlobService; directoryService: DirectoryService },
): void {
  router.service(BlobServiceDescriptor, blobServiceHandler(services.blobService));
  router.service(DirectoryServiceDescriptor, directoryServiceHandler(services.directoryService));
}
