export * from "./gen/tvix/castore/protos/castore_pb.ts";
export * from "./gen/tvix/castore/protos/rpc_blobstore_pb.ts";
export * from "./gen/tvix/castore/protos/rpc_directory_pb.ts";
export * from "./gen/tvix/castore/v1alpha/blob_batch_pb.ts";
export * from "./gen/tvix/castore/v1alpha/directory_batch_pb.ts";
