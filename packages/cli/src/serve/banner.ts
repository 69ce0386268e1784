import { maskAddress } from "../config/masked-address.ts";
import type { ServeOptions } from "../options/serve-options.ts";

/** Where other commands look for a daemon by themselves. */
const USUAL = "http://localhost:8000";

/**
 * Returns what a server says on a terminal once it listens: where the store is, on which addresses, and what to try next.
 *
 * @param addresses the addresses it listens on
 * @param isDaemon whether it serves gRPC too
 */
export function banner(
  options: ServeOptions,
  addresses: readonly string[],
  isDaemon: boolean,
): string {
  const secure = options.tlsCert !== undefined;
  const urls = [...new Set(addresses.map((address) => urlOf(address, secure)))];
  const protocols = isDaemon ? "gRPC, and a binary cache for Nix" : "a binary cache for Nix";
  return [
    ...describeStores(options),
    `on ${urls.join(", ")} (${protocols})`,
    "",
    ...suggestions(urls, isDaemon),
    "Ctrl-C stops it.",
    "",
  ]
    .map((line) => `${line}\n`)
    .join("");
}

function describeStores(options: ServeOptions): string[] {
  if (options.storeComposition !== undefined) {
    return [`tvix-store serves the stores that "${options.storeComposition}" describes,`];
  }
  const rows = [
    ["blobs", options.blobServiceAddr],
    ["directories", options.directoryServiceAddr],
    ["path infos", options.pathInfoServiceAddr],
  ];
  const lines = rows.map(
    ([what, address]) => `  ${what!.padEnd(12)} ${maskAddress(address ?? "")}`,
  );
  return ["tvix-store serves", ...lines];
}

function suggestions(urls: readonly string[], isDaemon: boolean): string[] {
  const command = process.env.npm_lifecycle_event === "start" ? "bin/tvix-store" : "tvix-store";
  const [url] = urls.filter((url) => url.startsWith("http"));
  const [socket] = urls.filter((url) => url.startsWith("unix:"));
  const store = url === undefined ? socket && `grpc+${socket}` : `grpc+${url}`;
  const lines: string[] = [];
  if (url !== undefined) lines.push(`  nix copy --to ${url} /nix/store/HASH-NAME`);
  if (isDaemon && store !== undefined) {
    const usual = `${command} import ./FOLDER`;
    lines.push(`  ${url === USUAL ? usual : `${command} copy --to ${store} --closure ./result`}`);
  }
  if (isDaemon && url?.startsWith("http:")) {
    const { hostname, port } = new URL(url);
    lines.push(`  evans --host ${hostname.replace(/[[\]]/g, "")} --port ${port || "80"} -r repl`);
  }
  return lines.length === 0 ? [] : ["Try, in another terminal:", ...lines, ""];
}

function urlOf(address: string, secure: boolean): string {
  if (address.startsWith("/")) return `unix://${address}`;
  const [, host, port] = /^(.*):(\d+)$/.exec(address) ?? [];
  if (host === undefined) return address;
  const isLoopback = ["127.0.0.1", "[::1]"].includes(host);
  return `http${secure ? "s" : ""}://${isLoopback ? "localhost" : host}:${port}`;
}
