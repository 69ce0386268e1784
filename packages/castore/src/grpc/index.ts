export { GrpcBlobService } from "../blobservice/grpc.ts";
export { GrpcDirectoryService } from "../directoryservice/grpc.ts";
export { type Channel, openChannel } from "./channel.ts";
export { StreamCall } from "./stream-call.ts";
