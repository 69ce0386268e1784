import { resolve } from "node:path";
import { type AbortOptions, CastoreError, type CompositionOptions } from "@tvix/castore";
import { StoredPaths, type StorePathSource } from "@tvix/store";
import { embeddedIn, type ServiceOptions } from "../options/addresses.ts";
import { openServices } from "../services.ts";

const FOLDER = /^\.{0,2}\//;

/**
 * Returns the options that stand for the address of a whole store.
 *
 * @throws CastoreError `invalid_argument` for an address that does not name all three services
 */
export function servicesAt(address: string): ServiceOptions {
  const [scheme] = /^[a-z][a-z0-9+.-]*(?=:)/.exec(address) ?? [];
  if (scheme?.startsWith("grpc+")) {
    return {
      blobServiceAddr: address,
      directoryServiceAddr: address,
      pathInfoServiceAddr: address,
    };
  }
  if (scheme !== undefined) throw refusal(address, reasonAgainst(scheme));
  if (isLocalNix(address)) throw refusal(address, "a local Nix can be copied from only");
  if (address.endsWith(".toml")) return { storeComposition: address };
  if (FOLDER.test(address)) return embeddedIn(resolve(address));
  throw refusal(address, `expected an address, a folder such as "./${address}" or a TOML file`);
}

/** Opens a store to copy from. */
export async function openSource(
  address: string,
  options: AbortOptions & CompositionOptions,
): Promise<StorePathSource> {
  if (isLocalNix(address)) return await openLocalNix(address);
  if (/^(nix\+)?https?:/.test(address)) {
    const { parseUpstream } = await import("@tvix/nar-bridge"); // the same addresses as those of --upstream
    const { BinaryCachePaths } = await import("@tvix/store/binary-cache-paths");
    return new BinaryCachePaths(parseUpstream(address.replace(/^nix\+/, "")));
  }
  const addresses = servicesAt(address);
  const services = await openServices(addresses, { ...options, create: false });
  const source = new StoredPaths(JSON.stringify(address.replace(/[?].*/s, "?...")), services);
  return Object.assign(source, {
    [Symbol.asyncDispose]: () => services[Symbol.asyncDispose](),
  });
}

/** Opens the store of a local Nix, by an address as Nix has them: `local`, with `root`, or `real` and `state`. */
async function openLocalNix(address: string): Promise<StorePathSource> {
  const query = address.slice("local?".length);
  const { root, real, state, ...others } = Object.fromEntries(new URLSearchParams(query));
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw refusal(
      address,
      `expected the keys root, real or state, found ${JSON.stringify(unknown)}`,
    );
  }
  const { LocalNixStore } = await import("@tvix/store/local-nix");
  const { NIX_STATE_DIR } = process.env;
  return await LocalNixStore.open({
    realStoreDir: real ?? (root && `${root}/nix/store`),
    stateDir: state ?? (root ? `${root}/nix/var/nix` : NIX_STATE_DIR || undefined),
  });
}

function isLocalNix(address: string): boolean {
  return /^local(?=$|\?)/.test(address);
}

function reasonAgainst(scheme: string): string {
  if (/^(nix\+)?https?$/.test(scheme)) {
    return "a binary cache can be copied from only; to push to one, name its daemon by grpc+http:";
  }
  const lacks: Record<string, string> = {
    pack: "blobs, but no directories and path infos",
    sqlite: "directories or path infos, but no blobs",
  };
  const reason = scheme.startsWith("objectstore+")
    ? "blobs and directories, but no path infos"
    : lacks[scheme];
  if (reason === undefined) {
    return `expected grpc+http:, grpc+https:, grpc+unix:, a folder or a TOML file, found "${scheme}:"`;
  }
  return `it has ${reason}; describe all three services in a TOML file, and name that`;
}

function refusal(address: string, reason: string): CastoreError {
  const shown = address.includes("@")
    ? "the address"
    : JSON.stringify(address.replace(/\?.*/s, "?..."));
  return new CastoreError("invalid_argument", `Cannot use ${shown} as a store: ${reason}`);
}
