import { readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type InputOptions, rolldown } from "rolldown";
import { bundleLanes } from "../../packages/castore/scripts/bundle-lanes.ts";
import { builtinModules } from "./builtin-modules.ts";

const CLIENTS = new URL("./clients/", import.meta.url);
const DIST = fileURLToPath(new URL("../dist/", import.meta.url));

/** Packages with native code, and the clients of clouds, which no row uses. */
const EXTERNAL = /^(@napi-rs\/|better-sqlite3$|blake3$|@aws-sdk\/|@azure\/|@google-cloud\/)/;

/** Returns the bundled program of a client. */
export function clientProgram(name: string): string {
  return `${DIST}${name}.js`;
}

/** Bundles the clients in the way of the command: Node.js does not strip types while they are timed. */
export async function buildClients(): Promise<void> {
  rmSync(DIST, { recursive: true, force: true });
  const names = readdirSync(CLIENTS).map((file) => file.replace(/\.ts$/, ""));
  const input = Object.fromEntries(
    names.map((name) => [name, fileURLToPath(new URL(`${name}.ts`, CLIENTS))]),
  );
  const options: InputOptions = {
    platform: "node",
    external: EXTERNAL,
    plugins: [builtinModules],
  };
  await using clients = await rolldown({ ...options, input });
  await clients.write({ dir: DIST, format: "esm", entryFileNames: "[name].js" });
  await bundleLanes(DIST, "esm", options);
}
