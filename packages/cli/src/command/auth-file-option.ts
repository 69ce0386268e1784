import { Option } from "commander";

/** Returns the option for the auth file that a command edits. */
export function authFileOption(): Option {
  return new Option("--auth-file <file>", "the auth file of the daemon")
    .env("AUTH_FILE")
    .makeOptionMandatory();
}
