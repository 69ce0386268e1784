import { execFile } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { findProgram } from "@tvix/conformance/find-program";
import { describe } from "vitest";

const run = promisify(execFile);

/** What the configuration of the services lacks. */
const CONFIG = "extra-experimental-features = nix-command flakes ca-derivations";

/** A version of Nix that has a store of its own. */
export interface Nix {
  readonly version: string;
  /** Its folder, which has the same path inside and outside: for the store, and for files that it is to read. */
  readonly folder: string;
  /**
   * Runs a script of `sh`, which stops where a command fails, and returns what it wrote to stdout.
   *
   * @param env variables beside those of this process
   */
  run(script: string, env?: NodeJS.ProcessEnv): Promise<string>;
}

/** Versions that people use, by the name that the services have them under. */
const VERSIONS = [
  { version: "2.8", name: "nix", command: ["with-nix-root"] },
  { version: "2.26", name: "nix-trixie", command: ["with-nix", "trixie"] },
  { version: "2.34", name: "nix-sid", command: ["with-nix", "sid"] },
] as const;

/** Describes tests with each of three versions of Nix, and skips those of a version that is missing. */
export function describeWithNix(
  title: string,
  tests: (version: string, open: (folder: string) => Nix) => void,
): void {
  for (const { version, name, command } of VERSIONS) {
    const [program, ...args] = command;
    const path = isInstalled(args) ? findProgram(program) : undefined;
    const missing = path === undefined ? ` (missing: ${name})` : "";
    describe.skipIf(path === undefined)(`${title} of Nix ${version}${missing}`, () => {
      tests(version, (folder) => open(version, [path!, ...args], join(folder, "nix")));
    });
  }
}

function isInstalled([debian]: readonly string[]): boolean {
  if (debian === undefined) return findProgram("nix-store") !== undefined;
  const { TVIX_SERVICES } = process.env;
  return (
    TVIX_SERVICES !== undefined && existsSync(join(TVIX_SERVICES, "debian", debian, "usr/bin/nix"))
  );
}

function open(version: string, [program, ...args]: string[], folder: string): Nix {
  mkdirSync(folder);
  const home = join(folder, "home");
  return {
    version,
    folder,
    async run(script, extra) {
      const command = [...args, folder, "sh", "-ec", `cd ${folder}; ${script}`];
      const env = { ...process.env, NIX_HOME: home, NIX_CONFIG: CONFIG, ...extra };
      const { stdout } = await run(program!, command, { env, maxBuffer: 100_000_000 });
      return stdout;
    },
  };
}
