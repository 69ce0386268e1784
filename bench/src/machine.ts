import { availableParallelism, cpus, release, totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import { findProgram, programPath } from "@tvix/conformance/find-program";
import { execa } from "execa";

/** Programs that are compared, and how each is asked for its version. */
const VERSIONS: readonly (readonly string[])[] = [
  ["restic", "version"],
  ["nix-store", "--version"],
  ["cp", "--version"],
  ["tar", "--version"],
  ["zstd", "--version"],
];

/** Lines that say what the results were measured on, and of. */
export async function describeMachine(): Promise<string[]> {
  const cores = availableParallelism();
  const memory = (totalmem() / 2 ** 30).toFixed(0);
  const versions = await Promise.all([ourVersion(), ...VERSIONS.map(version), peerVersion()]);
  return [
    `${cpus()[0]?.model ?? "processor of unknown model"}, ${cores} cores, ${memory} GiB of memory, ` +
      `Linux ${release()}, Node ${process.versions.node}`,
    versions.join("; "),
  ];
}

async function ourVersion(): Promise<string> {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const { stdout } = await execa("git", ["describe", "--always", "--dirty"], {
    cwd: root,
    reject: false,
  });
  return `tvix-store ${stdout || "of no commit"}`;
}

async function peerVersion(): Promise<string> {
  const path = process.env.PEER_TVIX_STORE;
  return path ? `peer: ${await version([path, "--version"])}` : "peer: not installed";
}

async function version([name, ...args]: readonly string[]): Promise<string> {
  if (findProgram(name!) === undefined) return `${name}: not installed`;
  const { stdout } = await execa(name!, args, { env: { PATH: programPath() }, reject: false });
  return stdout.split("\n")[0]!.replaceAll("*", "").trim();
}
