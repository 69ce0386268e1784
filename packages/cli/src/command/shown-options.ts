import { type Command, Option } from "commander";
import { daemonAddresses, serviceOptions } from "../options/addresses.ts";
import { wholeNumber } from "../options/whole-number.ts";
import { tracingOption } from "../telemetry/tracing-option.ts";

const wholeSeconds = wholeNumber(/^[0-9]{1,6}$/, "whole seconds");

/** Adds the options of the commands that show the store as files. */
export function addShownOptions(command: Command): void {
  const own = [
    new Option(
      "--list-root",
      "list all store paths in the folder (default: look-ups by name only)",
    ),
    new Option("--show-xattr", "show digests as extended attributes"),
    new Option(
      "--threads <number>",
      "threads that read and verify contents (default: one less than there are cores)",
    ).argParser(wholeNumber(/^[1-9][0-9]{0,2}$/, "1 to 999")),
    new Option(
      "--timeout <seconds>",
      "how long a store that does not answer is waited for; 0 is without end. Then, programs get ETIMEDOUT",
    )
      .argParser(wholeSeconds)
      .default(60),
    new Option("--absent-ttl <seconds>", "how long it is remembered that a store path is absent")
      .argParser(wholeSeconds)
      .default(1),
    new Option("--cache-size <MiB>", "memory for contents that were read ahead")
      .argParser(wholeNumber(/^[1-9][0-9]{0,5}$/, "1 or more MiB"))
      .default(16),
    new Option(
      "--cache-dir <folder>",
      "keep contents that were read in a folder, for later mounts",
    ),
    new Option(
      "--cache-dir-size <MiB>",
      "limit of what is in that folder; what was not used for longest makes room",
    )
      .argParser(wholeNumber(/^[1-9][0-9]{0,7}$/, "1 or more MiB"))
      .default(1024),
  ];
  for (const option of [...own, ...serviceOptions(daemonAddresses()), tracingOption()]) {
    command.addOption(option);
  }
}
