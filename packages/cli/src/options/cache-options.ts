import { Option } from "commander";
import { stateFolder } from "../user-folders.ts";
import { wholeNumber } from "./whole-number.ts";

/** Options of the binary cache that is served over HTTP. */
export interface CacheOptions {
  /** Address of the object store for what belongs to the cache, such as logs. `undefined`: in memory. */
  cacheObjectAddr?: string;
  /** Priority among the substituters of a client: the lowest is asked first. */
  cachePriority: number;
  /** How narinfos announce NARs. */
  cacheCompression: "zstd" | "none";
  /** A file with a secret key of Nix. `undefined`: nothing is signed. */
  signingKeyFile?: string;
  /** Whether store paths are signed for good when they are pushed, or all of them in answers only. */
  sign: "stored" | "served";
}

/** Returns the options of the binary cache, with their environment variables. */
export function cacheOptions(): Option[] {
  const state = stateFolder();
  return [
    new Option(
      "--cache-object-addr <url>",
      "object store for what belongs to the binary cache and to no store path: names of pushed NARs, logs, realisations",
    )
      .env("CACHE_OBJECT_ADDR")
      .default(state && `sqlite://${encodeURI(state)}/http-cache`),
    new Option(
      "--cache-priority <number>",
      "priority of the binary cache among the substituters of a client: the lowest is asked first",
    )
      .env("CACHE_PRIORITY")
      .argParser(wholeNumber(/^[0-9]{1,9}$/, "a natural number"))
      .default(39),
    new Option(
      "--cache-compression <name>",
      "how narinfos announce NARs: as they are stored, compressed by zstd, or not compressed",
    )
      .env("CACHE_COMPRESSION")
      .choices(["zstd", "none"])
      .default("zstd"),
    new Option(
      "--signing-key-file <path>",
      "secret key of Nix that signs store paths whose NAR was verified here",
    ).env("SIGNING_KEY_FILE"),
    new Option(
      "--sign <when>",
      "stored: sign store paths that are pushed, for good; served: sign all store paths, in answers only",
    )
      .env("SIGN")
      .choices(["stored", "served"])
      .default("stored"),
  ];
}
