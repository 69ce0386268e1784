import type { Command } from "commander";
import { daemonAddresses, serviceOptions } from "../options/addresses.ts";
import { tracingOption } from "../telemetry/tracing-option.ts";
import { addHelpEnd, type HelpEnd, STATUSES } from "./help-end.ts";

/** Explains the arguments that name something in a store. */
const OBJECTS = `An OBJECT is one of these, with the path of something below it if need be:
  /nix/store/HASH-NAME  a store path; HASH-NAME alone will do
  HASH                  the hash part of a store path, 32 characters
  b3:DIGEST             the digest of a directory or a file, in base64 or hexadecimal
  result                a local path that leads into /nix/store by a symlink`;

/** Adds the options of a command that reads a store, and the end of its help. */
export function addReadOptions(command: Command, end: Omit<HelpEnd, "about">): Command {
  for (const option of serviceOptions(daemonAddresses())) command.addOption(option);
  return addHelpEnd(command.addOption(tracingOption()), {
    about: OBJECTS,
    ...end,
    statuses: end.statuses ?? { ...STATUSES, 1: "something was refused or failed, the rest done" },
  });
}
