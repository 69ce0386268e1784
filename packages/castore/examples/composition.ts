/**
 * Opens the stores that a TOML file names. Its entry points are `[blobservices.default]` and
 * `[directoryservices.default]`.
 *
 *   node examples/composition.ts FOLDER stores.toml
 */
import { readFile } from "node:fs/promises";
import { BLOB_SERVICES, Composition, DIRECTORY_SERVICES } from "@tvix/castore";
import { roundTrip } from "./round-trip.ts";

const [folder, file] = process.argv.slice(2) as [string, string];
const registries = { blobservices: BLOB_SERVICES, directoryservices: DIRECTORY_SERVICES };
await using composition = await Composition.parseToml(registries, await readFile(file, "utf8"));
await roundTrip(
  folder,
  await composition.service("blobservices"),
  await composition.service("directoryservices"),
);
