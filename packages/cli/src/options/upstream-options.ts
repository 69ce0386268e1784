import { Option } from "commander";
import { wholeNumber } from "./whole-number.ts";

/** Options of the binary caches that are served as well. */
export interface UpstreamCacheOptions {
  /** Addresses of binary caches, with their keys. */
  upstream: string[];
  /** How long the absence of a store path is remembered, in seconds. */
  upstreamAbsentTtl: number;
}

/** Returns the options of the binary caches that are served as well, with their environment variables. */
export function upstreamOptions(): Option[] {
  return [
    new Option(
      "--upstream <url...>",
      "binary cache that is asked for store paths that are not here, such as https://cache.nixos.org?priority=10; may be repeated",
    )
      .env("UPSTREAM")
      .default([], "none"),
    new Option(
      "--upstream-absent-ttl <seconds>",
      "how long it is remembered that no upstream has a store path",
    )
      .env("UPSTREAM_ABSENT_TTL")
      .argParser(wholeNumber(/^[0-9]{1,7}$/, "a number of seconds"))
      .default(300),
  ];
}
