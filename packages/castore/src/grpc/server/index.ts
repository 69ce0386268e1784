import type { ConnectRouter } from "@connectrpc/connect";
import {
  BlobBatchService as BlobBatchServiceDescriptor,
  BlobService as BlobServiceDescriptor,
  DirectoryBatchService as DirectoryBatchServiceDescriptor,
  DirectoryService as DirectoryServiceDescriptor,
  type GetDirectoryRequest,
  type ReadBlobsRequest,
  type StatBlobRequest,
} from "@tvix/proto/castore";
import type { BlobService } from "../../blobservice/blob-service.ts";
import type { DirectoryService } from "../../directoryservice/directory-service.ts";
import { MAX_BATCH_BYTES, MAX_EACH_BYTES } from "../../model/limits.ts";
import type { ServedService } from "../transport/direct-methods.ts";
import { blobBatchHandler } from "./blob-batch-handler.ts";
import { blobServiceHandler } from "./blob-service-handler.ts";
import { directoryBatchHandler } from "./directory-batch-handler.ts";
import { directoryServiceHandler } from "./directory-service-handler.ts";

export {
  type BudgetedCall,
  CallBudget,
  type CallBudgetOptions,
  type CallShare,
} from "../transport/call-budget.ts";
export { answerDirectly, type CallObserver, isDirect } from "../transport/direct-exchange.ts";
export {
  type DirectMethod,
  directMethods,
  type ServedService,
} from "../transport/direct-methods.ts";
export { encodedStream, encodedUnary } from "../transport/encoded-method.ts";
export { Heartbeat, type HeartbeatOptions } from "../transport/heartbeat.ts";
export { cancelled, stopSender } from "../transport/http2-stream.ts";
export { RpcError, toRpcError } from "../transport/rpc-error.ts";
export { RpcSpan } from "../transport/rpc-span.ts";

const MIB = 1024 * 1024;

/** Blobs and directories as they are served: `tvix.castore.v1`, and batches of both. */
export function castoreServices(services: {
  blobService: BlobService;
  directoryService: DirectoryService;
}): readonly ServedService[] {
  const { blobService, directoryService } = services;
  return [
    {
      service: BlobServiceDescriptor,
      ...blobServiceHandler(blobService),
      bytesHeld: {
        stat: ({ sendChunks, sendBao }: StatBlobRequest) => (sendChunks || sendBao ? MIB : 0),
        read: () => 1.5 * MIB,
        put: () => MIB,
      },
      ownedData: ["read"],
    },
    {
      service: BlobBatchServiceDescriptor,
      ...blobBatchHandler(blobService),
      bytesHeld: {
        // What is too much is refused by the handler.
        read: ({ blobs }: ReadBlobsRequest) =>
          Math.min(
            MAX_BATCH_BYTES,
            Number(blobs.reduce((sum, { size, maxSize }) => sum + size + maxSize, 0n)),
          ),
        listChunks: () => MIB,
        putList: () => 2 * MIB,
        putFrames: () => MAX_BATCH_BYTES,
        readEach: () => MAX_EACH_BYTES,
        readFrames: () => 4 * MIB,
      },
      lentRequests: ["put", "putFrames"],
    },
    {
      service: DirectoryServiceDescriptor,
      implementation: directoryServiceHandler(directoryService),
      bytesHeld: {
        get: ({ recursive }: GetDirectoryRequest) => (recursive ? MIB : 0),
        put: () => MIB,
      },
    },
    {
      service: DirectoryBatchServiceDescriptor,
      implementation: directoryBatchHandler(directoryService),
      bytesHeld: { get: () => MIB },
    },
  ];
}

/** Registers services with Connect, which serves them over every protocol that it knows. */
export function registerServices(router: ConnectRouter, services: readonly ServedService[]): void {
  for (const { service, implementation } of services) router.service(service, implementation);
}
