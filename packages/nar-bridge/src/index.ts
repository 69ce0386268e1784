export type { Answered, HttpRequest, HttpResponse } from "./exchange.ts";
export { createNarBridge, type NarBridge, type NarBridgeOptions } from "./nar-bridge.ts";
