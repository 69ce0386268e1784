import type { DescMethod } from "@bufbuild/protobuf";
import type { Scope } from "./scope.ts";

/** The scope that each method needs. One that is missing here needs `admin`. */
const METHOD_SCOPES: Readonly<Record<string, Readonly<Record<string, Scope>>>> = {
  "tvix.castore.v1.BlobService": { Stat: "read", Read: "read", Put: "write" },
  "tvix.castore.v1.DirectoryService": { Get: "read", Put: "write" },
  "tvix.castore.v1alpha.BlobBatchService": {
    Has: "read",
    Stat: "read",
    Read: "read",
    ListChunks: "read",
    ReadEach: "read",
    ReadFrames: "read",
    FrameSizes: "read",
    Put: "write",
    PutList: "write",
    PutFrames: "write",
  },
  "tvix.castore.v1alpha.DirectoryBatchService": { Has: "read", Get: "read" },
  "tvix.store.v1.PathInfoService": {
    Get: "read",
    List: "read",
    CalculateNAR: "read",
    Put: "write",
  },
  "tvix.store.v1alpha.PathInfoBatchService": { Get: "read", List: "read" },
  "grpc.reflection.v1.ServerReflection": { ServerReflectionInfo: "read" },
  "grpc.reflection.v1alpha.ServerReflection": { ServerReflectionInfo: "read" },
};

/** Services that need no token: those that watch over a daemon have none. */
const PUBLIC_SERVICES: ReadonlySet<string> = new Set(["grpc.health.v1.Health"]);

/** Returns the scope that a call needs; `undefined` for a call that needs none. An unknown method needs `admin`. */
export function scopeOfCall(method: DescMethod | undefined): Scope | undefined {
  if (method === undefined) return "admin";
  const { typeName } = method.parent;
  if (PUBLIC_SERVICES.has(typeName)) return undefined;
  const scopes = Object.hasOwn(METHOD_SCOPES, typeName) ? METHOD_SCOPES[typeName]! : {};
  return Object.hasOwn(scopes, method.name) ? scopes[method.name]! : "admin";
}
