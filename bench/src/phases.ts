import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** What time is spent on, as the results show it. */
export const PHASES = [
  "read",
  "BLAKE3",
  "cut",
  "compress",
  "SHA-256",
  "write",
  "index",
  "rpc",
  "threads",
  "load",
  "gc",
  "wait",
  "other",
] as const;

type Phase = (typeof PHASES)[number];

/** Where the time of some threads went. */
export interface ThreadTimes {
  /** Which threads: the first of a process, or all others of it. */
  readonly thread: "main" | "others";
  readonly process: "program" | "daemon";
  readonly threads: number;
  /** Seconds, summed over the threads. */
  readonly seconds: Readonly<Record<Phase, number>>;
}

/** The part of a V8 CPU profile that is used here. */
interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string };
    readonly children?: readonly number[];
  }[];
  readonly samples: readonly number[];
  /** Microseconds before each sample. */
  readonly timeDeltas: readonly number[];
}

interface Rule {
  readonly phase: Phase;
  /** Of the function. Default: any. */
  readonly name?: RegExp;
  /** Of the file; native functions have none, `""`. Default: any. */
  readonly url?: RegExp;
}

/** The first rule that matches counts. A function without a rule counts as whatever called it. */
const RULES: readonly Rule[] = [
  { phase: "wait", name: /^(?:\(idle\)|atomicsWaitLoop|wait|poll)$/, url: /^$|piscina/ },
  {
    phase: "load",
    url: /internal\/(modules|bootstrap|deps|source_map)|node:vm$|\/loader-[\w-]+\.cjs$/,
  },
  { phase: "load", name: /^(?:wrapSafe|compileFunction\w*|stripTypeScriptTypes)$/ },
  { phase: "BLAKE3", url: /hash\/blake3|blake-hash/ },
  { phase: "SHA-256", url: /internal\/crypto\/hash/ },
  { phase: "cut", url: /fastcdc/ },
  { phase: "compress", name: /^(?:zstd\w*|Zstd\w*|processChunk\w*|(en|de)codeChunk)$/ },
  { phase: "compress", url: /node:zlib|zstd-codec/ },
  {
    phase: "write",
    name: /^(?:write|writeBuffers?|writeString|writev|writeSync|fdatasync|fsync)$/,
    url: /^$/,
  },
  { phase: "read", name: /^(?:read|readdir|open|close|[lf]?stat|readFileUtf8)$/, url: /^$/ },
  { phase: "index", url: /better-sqlite3|node:sqlite|\/sqlite\/|chunk-index|index-writer/ },
  { phase: "threads", name: /^(?:postMessage|receiveMessageOnPort|onMessage)$/ },
  { phase: "threads", url: /internal\/worker/ },
  { phase: "gc", name: /^(?:\(garbage collector\))$/ },
  {
    phase: "rpc",
    url: /internal\/http2|@?connectrpc|@?bufbuild|node:(net|stream)|internal\/streams|\/rpc\//,
  },
];

/**
 * Sorts the time of one profile by phase: the time of each function itself, without what it calls.
 */
export function phaseSeconds(profile: CpuProfile): Record<Phase, number> {
  const phases = phasesOf(profile);
  const seconds = noSeconds();
  profile.samples.forEach((id, i) => {
    seconds[phases.get(id) ?? "other"] += Math.max(profile.timeDeltas[i]!, 0) / 1e6;
  });
  return seconds;
}

/** Reads the profiles that the processes of a step left in folders. */
export async function readPhases(folders: {
  program: string;
  daemon?: string;
}): Promise<ThreadTimes[]> {
  const times: ThreadTimes[] = [];
  for (const process of ["program", "daemon"] as const) {
    const folder = folders[process];
    if (folder === undefined) continue;
    const files = (await readdir(folder)).filter((name) => name.endsWith(".cpuprofile"));
    for (const thread of ["main", "others"] as const) {
      const found = files.filter((name) => (threadOf(name) === "0") === (thread === "main"));
      if (found.length === 0) continue;
      const seconds = noSeconds();
      for (const file of found) {
        const profile: CpuProfile = JSON.parse(await readFile(join(folder, file), "utf8"));
        const own = phaseSeconds(profile);
        for (const phase of PHASES) seconds[phase] += own[phase];
      }
      times.push({ process, thread, threads: found.length, seconds });
    }
  }
  return times;
}

/** Node names profiles `CPU.<date>.<time>.<process>.<thread>.<number>.cpuprofile`. */
function threadOf(file: string): string | undefined {
  return file.split(".")[4];
}

function phasesOf({ nodes }: CpuProfile): Map<number, Phase> {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const phases = new Map<number, Phase>();
  const stack: { id: number; caller: Phase }[] =
    nodes.length > 0 ? [{ id: nodes[0]!.id, caller: "other" }] : [];
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const { callFrame, children = [] } = byId.get(next.id)!;
    const phase = ruleFor(callFrame) ?? next.caller;
    phases.set(next.id, phase);
    for (const id of children) stack.push({ id, caller: phase });
  }
  return phases;
}

function ruleFor({ functionName, url }: { functionName: string; url: string }): Phase | undefined {
  return RULES.find(
    ({ name, url: file }) => (!name || name.test(functionName)) && (!file || file.test(url)),
  )?.phase;
}

function noSeconds(): Record<Phase, number> {
  return Object.fromEntries(PHASES.map((phase) => [phase, 0])) as Record<Phase, number>;
}
