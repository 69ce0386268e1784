import { resolve } from "node:path";
import { importPath, ReferenceCandidates } from "@tvix/store";
import type { Ora } from "ora";
import type { ServiceOptions } from "./addresses.ts";
import type { Interrupt } from "./interrupt.ts";
import { openServices } from "./services.ts";

/**
 * Imports paths one after the other, and prints the store path of each on stdout.
 *
 * @param options.references whether to scan for the store paths that are there, also those imported before
 */
export async function importPaths(
  paths: readonly string[],
  { references, ...addresses }: ServiceOptions & { references?: boolean },
  { signal }: Interrupt,
): Promise<void> {
  await using services = await openServices(addresses, { signal });
  const spinner = process.stderr.isTTY ? await createSpinner() : undefined;
  const candidates = references ? new ReferenceCandidates() : undefined;
  try {
    if (candidates !== undefined) {
      for await (const { storePath } of services.pathInfoService.list({ signal })) {
        candidates.add(storePath.hashPart);
      }
    }
    for (const path of paths) {
      spinner?.start(path);
      const { storePath } = await importPath(resolve(path), services, {
        signal,
        ...(candidates && { references: candidates }),
        ...(spinner && {
          onProgress({ entries, bytes }) {
            spinner.text = `${path}: ${entries} entries, ${(bytes / 1e6).toFixed(1)} MB`;
          },
        }),
      });
      candidates?.add(storePath.hashPart);
      spinner?.stop();
      process.stdout.write(`${storePath.toAbsolutePath()}\n`);
    }
  } finally {
    spinner?.stop();
  }
}

/** Loads what draws the progress line, for which there has to be a terminal. */
async function createSpinner(): Promise<Ora> {
  const { default: ora } = await import("ora");
  // Reading from the terminal is left alone, so that Ctrl-C stays a signal.
  return ora({ stream: process.stderr, discardStdin: false });
}
