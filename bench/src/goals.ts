import { availableParallelism } from "node:os";
import type { Results, Sample } from "./results.ts";
import { type Spread, spreadOf } from "./spread.ts";
import { CROWDED_CACHE } from "./subjects/binary-cache.ts";
import { FLOOR } from "./subjects/floor.ts";
import { NIX_ALONE, NIX_PUSH } from "./subjects/nix-push.ts";
import { PLAIN_HTTP2 } from "./subjects/plain-http2.ts";
import { oursInMemory, peer } from "./subjects/tvix-store.ts";

/** A number that says how good we are. */
interface Goal {
  readonly name: string;
  /** What it should be, in words. */
  readonly target: string;
  /** One value for each round; `undefined` if a row that it is made of was not measured. */
  values(results: Results): readonly number[] | undefined;
  /** Whether a median is good enough. Default: nothing is asked. */
  met?(median: number): boolean;
}

/** What became of a goal. */
export interface GoalOutcome {
  readonly goal: Goal;
  /** `undefined` if it was not measured. */
  readonly spread: Spread | undefined;
}

const DIRECT = "tvix-store import, direct, first";
const AGAIN = "tvix-store import, direct, again";
const DAEMON = "tvix-store import, daemon, first";
const GRPC = "grpc: tvix-store daemon";
const CACHE = "binary cache, daemon";
const PEER_CACHE = "binary cache, peer";
const NGINX = "binary cache, nginx";
const MB = 1e6;

/** Parts of the names of our rows. */
const IMPORT = ": tvix-store import, ";
const MOUNT = ": tvix-store mount, ";

const GOALS: readonly Goal[] = [
  ratio("small import / tar, zstd", `small: ${DIRECT}`, "small: tar | zstd -1 -T2, first", 1.8),
  ratio("small import / restic", `small: ${DIRECT}`, "small: restic backup, first", 0.4),
  ratio("small import again / restic", `small: ${AGAIN}`, "small: restic backup, again", 0.6),
  ratio("large import / tar, zstd", `large: ${DIRECT}`, "large: tar | zstd -1 -T2, first", 1.3),
  ratio("small import, daemon / direct", `small: ${DAEMON}`, `small: ${DIRECT}`, 1.4),
  ratio("large import, daemon / direct", `large: ${DAEMON}`, `large: ${DIRECT}`, 1.4),
  alone("small import, processor seconds", `small: ${DIRECT}`, cpuSeconds, atMost(2.6)),
  memory("memory of an import, MB", IMPORT, ({ program }) => program.peakBytes, 160),
  memory("memory of a daemon, MB", IMPORT, daemonPeak, 160),
  memory("memory of a mount, MB", MOUNT, ({ program }) => program.peakBytes, 160),
  memory("memory of a binary cache, 64 down and 16 up, MB", CROWDED_CACHE, daemonPeak, 256),
  ...["direct", "daemon"].flatMap((how) => [
    mounted(how, "256 MB", "peer", 1.5),
    mounted(how, "4 KiB at random", "peer", 1),
    mounted(how, "tar of 10,000 files", "peer", 1),
    mounted(how, "find over 100,000 entries", "peer", 1),
    mounted(how, "256 MB again", "disk", 0.9),
  ]),
  pushed("10 % changed pushed over a link / nix copy, bytes", 0.15, ({ work }) => work!.bytes!),
  pushed("10 % changed pushed over a link / nix copy", 1, ({ work }) => work!.seconds),
  share("gRPC Put of 256 MB in memory / node:http2", ...overHttp2("Put one of 256 MB"), 0.45),
  share("gRPC Read of 256 MB in memory / node:http2", ...overHttp2("Read one of 256 MB"), 0.6),
  share("gRPC Put of 15 KB in memory / node:http2", ...overHttp2("Put 15 KB"), 0.6),
  share("gRPC Put of 256 MB / peer", ...besidePeer("Put one of 256 MB"), 1.5),
  share("gRPC Read of 256 MB / peer", ...besidePeer("Read one of 256 MB"), 1.3),
  share("gRPC Put of 15 KB / peer", ...besidePeer("Put 15 KB"), 2),
  share("gRPC Read of 15 KB / peer", ...besidePeer("Read 15 KB"), 1.2),
  alone(
    "Stat beside 16 uploads, 99th percentile, ms",
    `${GRPC}, Stat beside 16 uploads`,
    percentile99,
    atMost(10),
  ),
  ratio("--version / node -e 0", "start: tvix-store, --version", "start: node, -e 0", 2.5),
  alone(
    "import of a small file, s",
    "start: tvix-store, import of a small file, direct",
    wallSeconds,
    atMost(0.2),
  ),
  alone(
    "import of a small file, daemon, s",
    "start: tvix-store, import of a small file, daemon",
    wallSeconds,
    atMost(0.2),
  ),
  alone("List of 100,000 PathInfos, /s", `${GRPC}, List 100,000`, countPerSecond, atLeast(100_000)),
  alone(
    "NAR render, small, MB/s",
    "small: NAR render, direct, to a sink",
    bytesPerSecond,
    atLeast(372),
  ),
  alone(
    "NAR render, large, MB/s",
    "large: NAR render, direct, to a sink",
    bytesPerSecond,
    atLeast(794),
  ),
  ratio("NAR ingest, small / import", "small: NAR ingest, direct, first", `small: ${DIRECT}`, 1.3),
  share("narinfos a second / nginx", `small: ${CACHE}, narinfo`, `small: ${NGINX}, narinfo`, 0.4),
  share("NAR over HTTP, small / peer", `small: ${CACHE}, NAR`, `small: ${PEER_CACHE}, NAR`, 3),
  share("NAR over HTTP, large / peer", `large: ${CACHE}, NAR`, `large: ${PEER_CACHE}, NAR`, 5),
  share("NAR by zstd, large / nginx, NAR", `large: ${CACHE}, NAR, zstd`, `large: ${NGINX}, NAR`, 1),
  ourShare("1,000 small paths, xz"),
  ourShare("1,000 small paths, zstd"),
  ourShare("one path of 500 MB, none"),
  ourShare("one path of 500 MB, zstd"),
  efficiency("small"),
  efficiency("large"),
];

/** The rows of a step over gRPC with stores in memory, and by HTTP/2 alone. */
function overHttp2(step: string): [ours: string, theirs: string] {
  return [`grpc: ${oursInMemory.name} daemon, ${step}`, `grpc: ${PLAIN_HTTP2}, ${step}`];
}

/** The rows of a step over gRPC with stores on a disk, of our daemon and of that of the peer. */
function besidePeer(step: string): [ours: string, theirs: string] {
  return [`${GRPC}, ${step}`, `grpc: ${peer.name} daemon, ${step}`];
}

/** The bound that a figure has to keep. */
type Asked = Pick<Goal, "target" | "met">;

function atMost(limit: number): Asked {
  return { target: `at most ${limit}`, met: (median) => median <= limit };
}

function atLeast(limit: number): Asked {
  return { target: `at least ${limit}`, met: (median) => median >= limit };
}

/** Works out every goal. */
export function goalOutcomes(results: Results): GoalOutcome[] {
  return GOALS.map((goal) => {
    const values = goal.values(results);
    return { goal, spread: values?.length ? spreadOf(values) : undefined };
  });
}

/** Wall time by wall time, each round by itself: what slows down the machine slows down both. */
function ratio(name: string, ours: string, theirs: string, limit: number): Goal {
  return {
    name,
    ...atMost(limit),
    values: (results) => pairs(results, ours, theirs, (a, b) => a.wallSeconds / b.wallSeconds),
  };
}

/** A push by a push, each round by itself. */
function pushed(name: string, limit: number, of: (sample: Sample) => number): Goal {
  const row = (program: string) => `small: ${program}, over a link, 10 % changed`;
  return {
    name,
    ...atMost(limit),
    values: (results) =>
      pairs(results, row("tvix-store copy"), row("nix copy, zstd"), (a, b) => of(a) / of(b)),
  };
}

/** Rate by rate, each round by itself. */
function share(name: string, ours: string, theirs: string, limit: number): Goal {
  const speed = ({ work }: Sample) => (work!.count ?? work!.bytes!) / work!.seconds;
  return {
    name,
    ...atLeast(limit),
    values: (results) => pairs(results, ours, theirs, (a, b) => speed(a) / speed(b)),
  };
}

/** A read out of our mount by the same out of that of the peer, or from the disk. */
function mounted(how: string, read: string, other: "peer" | "disk", limit: number): Goal {
  const theirs = other === "peer" ? `peer tvix-store mount, ${how}` : "files on disk";
  const rows = [`mount: tvix-store mount, ${how}, ${read}`, `mount: ${theirs}, ${read}`] as const;
  return share(`mount, ${how}, ${read} / ${other}`, ...rows, limit);
}

/** How much of the time of a push is not that of Nix, which the same push to a sink takes in the same round. */
function ourShare(step: string): Goal {
  return {
    name: `our share of a push of ${step}`,
    ...atMost(0.25),
    values: (results) =>
      pairs(
        results,
        `push: ${NIX_PUSH}, ${step}`,
        `push: ${NIX_ALONE}, ${step}`,
        (ours, alone) => 1 - alone.wallSeconds / ours.wallSeconds,
      ),
  };
}

/** A number of one row. */
function alone(name: string, row: string, of: (sample: Sample) => number, asked: Asked): Goal {
  return { name, ...asked, values: (results) => results.get(row)?.samples.map(of) };
}

/** The time of the primitives alone, shared by all cores without loss, by that of the whole import. */
function efficiency(tree: string): Goal {
  const cores = availableParallelism();
  return {
    name: `${tree} import, efficiency: primitives / ${cores} cores / wall`,
    target: "1 is ideal",
    values: (results) =>
      pairs(
        results,
        `${tree}: ${FLOOR}, first`,
        `${tree}: ${DIRECT}`,
        (floor, whole) => floor.work!.seconds / cores / whole.wallSeconds,
      ),
  };
}

/** The most that a process had in a round, in any of the rows with a part of a name. */
function memory(name: string, rows: string, of: (sample: Sample) => number, limit: number): Goal {
  return {
    name,
    ...atMost(limit),
    values(results) {
      const samples = [...results.values()]
        .filter(({ name }) => name.includes(rows))
        .flatMap((row) => row.samples);
      const byRound = Object.values(Object.groupBy(samples, ({ round }) => round));
      return byRound.map((round = []) => Math.max(...round.map(of)) / MB);
    },
  };
}

function daemonPeak({ daemon }: Sample): number {
  return daemon?.peakBytes ?? 0;
}

function pairs(
  results: Results,
  first: string,
  second: string,
  of: (first: Sample, second: Sample) => number,
): readonly number[] | undefined {
  const [a, b] = [results.get(first)?.samples, results.get(second)?.samples];
  if (a === undefined || b === undefined) return undefined;
  return a.flatMap((sample) => {
    const other = b.find(({ round }) => round === sample.round);
    return other ? [of(sample, other)] : [];
  });
}

function bytesPerSecond({ work }: Sample): number {
  return work!.bytes! / work!.seconds / MB;
}

function wallSeconds({ wallSeconds }: Sample): number {
  return wallSeconds;
}

/** In milliseconds. */
function percentile99({ work }: Sample): number {
  return work!.percentile99! * 1000;
}

function cpuSeconds({ program }: Sample): number {
  return program.cpuSeconds;
}

function countPerSecond({ work }: Sample): number {
  return work!.count! / work!.seconds;
}
