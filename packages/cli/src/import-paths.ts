import { resolve } from "node:path";
import { importPath } from "@tvix/store";
import type { Ora } from "ora";
import type { ServiceOptions } from "./addresses.ts";
import type { Interrupt } from "./interrupt.ts";
import { openServices } from "./services.ts";

/** Imports paths one after the other, and prints the store path of each on stdout. */
export async function importPaths(
  paths: readonly string[],
  addresses: ServiceOptions,
  { signal }: Interrupt,
): Promise<void> {
  await using services = await openServices(addresses, { signal });
  const spinner = process.stderr.isTTY ? await createSpinner() : undefined;
  try {
    for (const path of paths) {
      spinner?.start(path);
      const { storePath } = await importPath(resolve(path), services, {
        signal,
        ...(spinner && {
          onProgress({ entries, bytes }) {
            spinner.text = `${path}: ${entries} entries, ${(bytes / 1e6).toFixed(1)} MB`;
          },
        }),
      });
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
