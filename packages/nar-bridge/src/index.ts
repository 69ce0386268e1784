export type { Answered, HttpRequest, HttpResponse } from "./exchange.ts";
export { HttpError } from "./http-error.ts";
export { createNarBridge, type NarBridge, type NarBridgeOptions } from "./nar-bridge.ts";
export type { SigningOptions } from "./signer.ts";
export type { UploadSlotOptions } from "./upload/upload-slots.ts";
export { parseUpstream, parseUpstreams } from "./upstream/upstream-config.ts";
export type { UpstreamOptions } from "./upstream/upstreams.ts";
