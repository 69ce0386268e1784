import { Option } from "commander";
import { stateFolder } from "../user-folders.ts";

/** Addresses of the three services. */
export interface ServiceAddresses {
  blobServiceAddr: string;
  directoryServiceAddr: string;
  pathInfoServiceAddr: string;
}

/** The options that choose the services of a command. */
export interface ServiceOptions extends Partial<ServiceAddresses> {
  /** Path of a TOML file that describes the services, instead of the addresses. */
  storeComposition?: string;
}

/**
 * Returns the options for the three services, with their environment variables.
 *
 * @param defaults `undefined` if there are none: the user has to give the addresses then
 */
export function serviceOptions(defaults: ServiceAddresses | undefined): Option[] {
  return [
    new Option(
      "--experimental-store-composition, --store-composition <file>",
      "a TOML file that describes the services, instead of their addresses",
    )
      .env("STORE_COMPOSITION")
      .conflicts(["blobServiceAddr", "directoryServiceAddr", "pathInfoServiceAddr"]),
    new Option("--blob-service-addr <url>", "where blobs are stored")
      .env("BLOB_SERVICE_ADDR")
      .default(defaults?.blobServiceAddr),
    new Option("--directory-service-addr <url>", "where directories are stored")
      .env("DIRECTORY_SERVICE_ADDR")
      .default(defaults?.directoryServiceAddr),
    new Option("--path-info-service-addr <url>", "where path infos are stored")
      .env("PATH_INFO_SERVICE_ADDR")
      .default(defaults?.pathInfoServiceAddr),
  ];
}

/** The default address of a daemon on this machine. */
export const DAEMON_ADDRESS = "grpc+http://localhost:8000";

/** Returns the default address of a daemon on this machine, for each service. */
export function daemonAddresses(): ServiceAddresses {
  return {
    blobServiceAddr: DAEMON_ADDRESS,
    directoryServiceAddr: DAEMON_ADDRESS,
    pathInfoServiceAddr: DAEMON_ADDRESS,
  };
}

/** Returns the addresses of the stores in the state folder of this user; `undefined` if there is no such folder. */
export function embeddedAddresses(): ServiceAddresses | undefined {
  const state = stateFolder();
  if (state === undefined) return undefined;
  return embeddedIn(state);
}

/** Returns the addresses of the stores in a folder. */
export function embeddedIn(path: string): ServiceAddresses {
  const folder = encodeURI(path);
  return {
    blobServiceAddr: `pack://${folder}/blobs`,
    directoryServiceAddr: `sqlite://${folder}/directories.sqlite`,
    pathInfoServiceAddr: `sqlite://${folder}/path-infos.sqlite`,
  };
}
