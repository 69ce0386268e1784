export * from "./gen/tvix/store/protos/pathinfo_pb.ts";
export * from "./gen/tvix/store/protos/rpc_pathinfo_pb.ts";
export * from "./gen/tvix/store/v1alpha/path_info_batch_pb.ts";
