import { readdir, readFile, readlink } from "node:fs/promises";
import { basename, parse } from "node:path";

/** The state of a socket that listens, in /proc/net/tcp. */
const LISTENING = "0A";

/**
 * Returns the process that listens on a TCP port of this machine, such as `process 4711 (tvix-store)`. `undefined` if there is
 * none, or the system does not show it to this user.
 */
export async function portHolder(port: number): Promise<string | undefined> {
  const inodes = await listeningInodes(port);
  if (inodes.size === 0) return undefined;
  const processes = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  for (const id of processes) {
    const files = await readdir(`/proc/${id}/fd`).catch(() => []);
    for (const file of files) {
      const target = await readlink(`/proc/${id}/fd/${file}`).catch(() => "");
      if (!inodes.has(target)) continue;
      const name = await programOf(id);
      return `process ${id}${name && ` (${name})`}`;
    }
  }
  return undefined;
}

/** Returns the name of the program that a process runs, of Node.js that of the script; empty if it is not shown. */
async function programOf(id: string): Promise<string> {
  const line = await readFile(`/proc/${id}/cmdline`, "utf8").catch(() => "");
  const [program = "", ...args] = line.split("\0");
  const script = args.find((word) => !word.startsWith("-"));
  const name = basename(program);
  return name === "node" && script ? parse(script).name : name;
}

/** Returns the sockets that listen on a port, as links in /proc have them. */
async function listeningInodes(port: number): Promise<Set<string>> {
  const inodes = new Set<string>();
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    const lines = (await readFile(table, "utf8").catch(() => "")).split("\n").slice(1);
    for (const line of lines) {
      const [, local = "", , state, , , , , , inode] = line.trim().split(/ +/);
      const isPort = Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16) === port;
      if (isPort && state === LISTENING) inodes.add(`socket:[${inode}]`);
    }
  }
  return inodes;
}
