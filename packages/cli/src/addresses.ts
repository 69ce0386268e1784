import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { Option } from "commander";

/** Where the three services are, as given on the command line. */
export interface ServiceAddresses {
  blobServiceAddr: string;
  directoryServiceAddr: string;
  pathInfoServiceAddr: string;
}

/** What the services of a command are. */
export interface ServiceOptions extends ServiceAddresses {
  /** A TOML file that describes them, in place of the addresses. */
  storeComposition?: string;
}

/** The options that say what the three services are, with their environment variables and defaults. */
export function serviceOptions(defaults: ServiceAddresses): Option[] {
  return [
    new Option(
      "--experimental-store-composition, --store-composition <file>",
      "a TOML file that describes the services, in place of their addresses",
    )
      .env("STORE_COMPOSITION")
      .conflicts(Object.keys(defaults)),
    new Option("--blob-service-addr <url>", "where blobs are stored")
      .env("BLOB_SERVICE_ADDR")
      .default(defaults.blobServiceAddr),
    new Option("--directory-service-addr <url>", "where directories are stored")
      .env("DIRECTORY_SERVICE_ADDR")
      .default(defaults.directoryServiceAddr),
    new Option("--path-info-service-addr <url>", "where path infos are stored")
      .env("PATH_INFO_SERVICE_ADDR")
      .default(defaults.pathInfoServiceAddr),
  ];
}

/** The services of a daemon on this machine. */
export function daemonAddresses(): ServiceAddresses {
  const daemon = "grpc+http://[::1]:8000";
  return { blobServiceAddr: daemon, directoryServiceAddr: daemon, pathInfoServiceAddr: daemon };
}

/** Stores in the state folder of this user. */
export function embeddedAddresses(): ServiceAddresses {
  const folder = encodeURI(stateFolder());
  return {
    blobServiceAddr: `pack://${folder}/blobs`,
    directoryServiceAddr: `sqlite://${folder}/directories.sqlite`,
    pathInfoServiceAddr: `sqlite://${folder}/path-infos.sqlite`,
  };
}

/** `$STATE_DIRECTORY` (systemd), `/var/lib/tvix-store` for root, the XDG state folder otherwise. */
function stateFolder(): string {
  const { STATE_DIRECTORY, XDG_STATE_HOME } = process.env;
  if (STATE_DIRECTORY) return STATE_DIRECTORY.split(":")[0]!; // systemd lists all, ours is the first
  if (process.getuid?.() === 0) return "/var/lib/tvix-store";
  const states =
    XDG_STATE_HOME && isAbsolute(XDG_STATE_HOME) ? XDG_STATE_HOME : join(homedir(), ".local/state");
  return join(states, "tvix-store");
}
