import { resolve } from "node:path";
import { importPath } from "@tvix/store";
import { Command } from "commander";
import ora from "ora";
import type { Interrupt } from "../interrupt.ts";
import { run } from "../run.ts";
import {
  daemonAddresses,
  openServices,
  type ServiceAddresses,
  serviceOptions,
} from "../services.ts";

/** `tvix-store import PATH...` */
export function importCommand(): Command {
  const command = new Command("import")
    .description("Stores files and folders, and prints the store path of each on stdout")
    .argument("<path...>", "a folder, a file or a symlink, named in the store as it is here")
    .action((paths: string[], options: ServiceAddresses) =>
      run((interrupt) => importPaths(paths, options, interrupt)),
    );
  for (const option of serviceOptions(daemonAddresses())) command.addOption(option);
  return command;
}

async function importPaths(
  paths: readonly string[],
  addresses: ServiceAddresses,
  { signal }: Interrupt,
): Promise<void> {
  await using services = await openServices(addresses, { signal });
  // Reading from the terminal is left alone, so that Ctrl-C stays a signal.
  const spinner = ora({
    stream: process.stderr,
    isSilent: !process.stderr.isTTY,
    discardStdin: false,
  });
  try {
    for (const path of paths) {
      spinner.start(path);
      const { storePath } = await importPath(resolve(path), services, {
        signal,
        onProgress({ entries, bytes }) {
          spinner.text = `${path}: ${entries} entries, ${(bytes / 1e6).toFixed(1)} MB`;
        },
      });
      spinner.stop();
      process.stdout.write(`${storePath.toAbsolutePath()}\n`);
    }
  } finally {
    spinner.stop();
  }
}
