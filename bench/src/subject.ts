import type { Tree } from "./trees/tree.ts";

/** A program and its arguments, as it is started. */
export interface Command {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** A program that runs until it is stopped. */
export interface DaemonCommand extends Command {
  /** The port of this machine that it listens on. Default: it listens on the socket of its place. */
  readonly port?: number;
}

/** Where one run may write. */
export interface Place {
  /** A folder of its own. */
  readonly folder: string;
  /** The path that its daemon, if it has one, listens on: a unix socket. */
  readonly socket: string;
}

/** One program run that is timed. A row of the results. */
export interface Step {
  readonly name: string;
  /** The tree that it stores. Its bytes by the time of the whole program are the rate. */
  readonly tree?: Tree;
  /** Whether its last line on stdout is a {@link Work}, of which the rate is taken instead. */
  readonly reportsWork?: boolean;
  command(place: Place): Command;
}

/** What a program that times a part of itself says of that part. */
export interface Work {
  readonly seconds: number;
  readonly bytes?: number;
  readonly count?: number;
  /** How many seconds 99 of 100 of them took at most. */
  readonly percentile99?: number;
  /** Seconds by what they were spent on. */
  readonly parts?: Readonly<Record<string, number>>;
}

/**
 * How files are read, of which nothing is in the page cache: a folder by `tar` or `find`, or a file from its begin to its end,
 * the same a second time, or small pieces of it in no order.
 */
export type ReadKind = "tar" | "find" | "sequential" | "again" | "random";

/** Something that is compared with others: a way to do a piece of work, one row a step. */
export interface Subject {
  readonly name: string;
  /** Names or paths of the programs that it runs. Where one is missing, its rows say so. */
  readonly needs: readonly string[];
  /** Whether its processes are Node, of which CPU profiles can be had. */
  readonly profiled?: boolean;
  /** Whether all rounds share one folder, prepared once: for steps that only read. */
  readonly keepsFolder?: boolean;
  /** What is done in a new folder before anything is timed. */
  prepare?(place: Place): Promise<void>;
  /** The daemon that its steps talk to: started before the first and stopped after the last. */
  daemon?(place: Place): DaemonCommand;
  /** Run in order, in one folder. */
  readonly steps: readonly Step[];
}

/** Subjects that do the same work and are run in turn. */
export interface Workload {
  readonly name: string;
  /** What is brought into memory before each round. */
  readonly trees: readonly Tree[];
  readonly subjects: readonly Subject[];
}

/** How a row is called, and selected. */
export function rowName(workload: Workload, subject: Subject, step: Step): string {
  return `${workload.name}: ${subject.name}, ${step.name}`;
}
