import type { ServerHttp2Stream } from "node:http2";
import type { BlobService } from "../src/blobservice/blob-service.ts";
import { MemoryDirectoryService } from "../src/directoryservice/memory.ts";
import { GrpcBlobService } from "../src/grpc/client/grpc-blob-service.ts";
import { castoreServices } from "../src/grpc/server/index.ts";
import { CallBudget } from "../src/grpc/transport/call-budget.ts";
import { openChannel } from "../src/grpc/transport/channel.ts";
import { answerDirectly } from "../src/grpc/transport/direct-exchange.ts";
import { directMethods } from "../src/grpc/transport/direct-methods.ts";
import { type Http2Fixture, startHttp2 } from "./http2-fixture.ts";

/** A server of blobs, and a client of it. Disposing ends both. */
export interface ServedBlobs extends Http2Fixture {
  readonly blobService: GrpcBlobService;
  /** The paths of all calls. */
  readonly calls: readonly string[];
}

/**
 * Serves blobs.
 *
 * @param onCall sees each call, and returns whether it answers it itself. Default: it answers none
 */
export async function serveBlobs(
  stored: BlobService,
  onCall: (path: string, stream: ServerHttp2Stream) => boolean = () => false,
): Promise<ServedBlobs> {
  const calls: string[] = [];
  const services = castoreServices({
    blobService: stored,
    directoryService: new MemoryDirectoryService(),
  });
  const methods = new Map(services.flatMap((service) => [...directMethods(service)]));
  const budget = new CallBudget();
  const observer = { bytesIn: 0, bytesOut: 0, error: undefined, answered() {}, end() {} };
  const fixture = await startHttp2((server) => {
    server.on("stream", (stream, headers) => {
      const path = headers[":path"]!;
      calls.push(path);
      if (onCall(path, stream)) return;
      void answerDirectly(stream, methods.get(path)!, { ...observer }, budget);
    });
  });
  const channel = openChannel(`grpc+unix://${fixture.socket}`, { retryMs: 0 });
  const blobService = new GrpcBlobService(channel);
  const dispose = fixture[Symbol.asyncDispose].bind(fixture);
  return Object.assign(fixture, {
    blobService,
    calls,
    async [Symbol.asyncDispose]() {
      await blobService[Symbol.asyncDispose]();
      await dispose();
    },
  });
}
