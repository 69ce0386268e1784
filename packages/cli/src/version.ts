import { createRequire } from "node:module";
import { type AbortOptions, blake3 } from "@tvix/castore";
import manifest from "../package.json" with { type: "json" };
import { writeStdout } from "./terminal/output.ts";

/** Clients of clouds, by what stores in them: packages that are installed separately. */
const CLIENTS = {
  s3: "@aws-sdk/client-s3",
  gcs: "@google-cloud/storage",
  azure: "@azure/storage-blob",
};

/** Prints the version, and what it runs on. */
export async function printVersion({
  json,
  ...options
}: AbortOptions & { json: boolean }): Promise<void> {
  const { node, zstd = "none" } = process.versions;
  const version = {
    version: manifest.version,
    node,
    platform: `${process.platform}-${process.arch}`,
    blake3: blake3.implementation,
    zstd,
    features: Object.entries(CLIENTS).flatMap(([name, path]) => (isInstalled(path) ? [name] : [])),
  };
  const lines = Object.entries(version).map(
    ([name, value]) => `${name.padEnd(9)} ${[value].flat().join(", ") || "none"}\n`,
  );
  await writeStdout(json ? `${JSON.stringify(version)}\n` : lines.join(""), options);
}

function isInstalled(name: string): boolean {
  try {
    createRequire(import.meta.url).resolve(name);
    return true;
  } catch {
    return false;
  }
}
