import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { ServiceOptions } from "./addresses.ts";
import type { CacheOptions } from "./cache-options.ts";
import type { ServerOptions } from "./server-options.ts";
import type { StoreModeOptions } from "./store-mode.ts";
import type { UpstreamCacheOptions } from "./upstream-options.ts";

/** Options of a command that serves. */
export interface ServeOptions
  extends ServerOptions,
    ServiceOptions,
    StoreModeOptions,
    CacheOptions,
    UpstreamCacheOptions,
    TracingOptions {}
