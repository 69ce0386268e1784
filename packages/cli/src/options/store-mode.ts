import { InvalidArgumentError, Option } from "commander";

/** The option of a command that may create stores. */
export interface StoreModeOptions {
  /** Permissions of folders that are created in stores; files have them without those to execute. Default: 0700. */
  storeMode?: number;
}

const OWNER_ONLY = 0o700;

/** Returns the option for the permissions of what is created in stores. */
export function storeModeOption(): Option {
  return new Option(
    "--store-mode <mode>",
    "octal permissions of new folders of stores, such as 0750 for a group; files get them without execution",
  )
    .env("STORE_MODE")
    .argParser(parseMode)
    .default(OWNER_ONLY, "0700, the owner alone");
}

/** Has this process create files and folders with the permissions of stores. */
export function useStoreMode({ storeMode = OWNER_ONLY }: StoreModeOptions): void {
  process.umask(~storeMode & 0o777);
}

function parseMode(text: string): number {
  if (/^0?7[0-7]{2}$/.test(text)) return Number.parseInt(text, 8);
  throw new InvalidArgumentError(
    `expected three octal digits, the first of them 7, found ${JSON.stringify(text)}`,
  );
}
