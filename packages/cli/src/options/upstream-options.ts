import { InvalidArgumentError, Option } from "commander";

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
      .argParser(parseSeconds)
      .default(300),
  ];
}

function parseSeconds(text: string): number {
  if (/^[0-9]{1,7}$/.test(text)) return Number(text);
  throw new InvalidArgumentError(`expected a number of seconds, found ${JSON.stringify(text)}`);
}
