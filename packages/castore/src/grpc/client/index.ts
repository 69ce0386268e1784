export { type Channel, type ChannelOptions, openChannel } from "../transport/channel.ts";
export { onlyFieldOf } from "../transport/frames.ts";
export { fromRpcError } from "../transport/rpc-error.ts";
export { StreamCall } from "../transport/stream-call.ts";
export { GrpcBlobService } from "./grpc-blob-service.ts";
export { GrpcDirectoryService } from "./grpc-directory-service.ts";
