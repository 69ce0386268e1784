export { type Channel, type ChannelOptions, openChannel } from "../transport/channel.ts";
export { StreamCall } from "../transport/stream-call.ts";
export { GrpcBlobService } from "./grpc-blob-service.ts";
export { GrpcDirectoryService } from "./grpc-directory-service.ts";
