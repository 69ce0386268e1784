import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { findProgram } from "@tvix/conformance/find-program";
import { Command, InvalidArgumentError } from "commander";
import { buildClients } from "./build-clients.ts";
import { buildCommand } from "./build-command.ts";
import { describeMachine } from "./machine.ts";
import { formatReport, writeReport } from "./report.ts";
import { runWorkloads } from "./run.ts";
import { defaultWorkloads, workloadsFor } from "./workloads.ts";

interface Options {
  tree?: string[];
  rounds: number;
  only?: RegExp;
  cache: string;
  profile: boolean;
  write: boolean;
}

const README = new URL("../README.md", import.meta.url);
const CACHES = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");

await new Command("pnpm bench")
  .description("Times whole programs that store trees, and writes what it found to bench/README.md")
  .option(
    "--tree <path...>",
    "trees to import, in place of the generated ones; leaves the README alone",
  )
  .option("--rounds <n>", "how often each program is run", positive, 5)
  .option("--only <regex>", "rows to run, by name; leaves the README alone", pattern)
  .option(
    "--cache <folder>",
    "where trees are kept and stores are made",
    join(CACHES, "tvix-bench"),
  )
  .option("--no-profile", "leave out the round that is not timed but shows where time goes")
  .option("--no-write", "leave the README alone")
  .action(bench)
  .parseAsync();

async function bench(options: Options, command: Command): Promise<void> {
  if (findProgram("time") === undefined)
    command.error('Cannot measure: expected GNU "time" in PATH');
  const cache = resolve(options.cache);
  const folder = join(cache, "runs", String(process.pid));
  await mkdir(folder, { recursive: true });
  const trees = options.tree?.map((path) => resolve(path));
  const absent = trees?.find((path) => !existsSync(path));
  if (absent !== undefined) command.error(`Cannot import "${absent}": it does not exist`);
  try {
    progress("command and clients");
    await buildCommand();
    await buildClients();
    progress("trees");
    const workloads = trees ? await workloadsFor(trees) : await defaultWorkloads(cache);
    const only = options.only ?? /^/;
    const machine = await describeMachine();
    const { rounds, profile } = options;
    const settings = { folder, rounds, only, profile, onProgress: progress };
    const results = await runWorkloads(workloads, settings);
    const report = formatReport(results, { date: new Date(), rounds, machine });
    process.stdout.write(`${report}\n`);
    const isWhole = options.only === undefined && trees === undefined;
    if (options.write && isWhole) await writeReport(README, report);
    if ([...results.values()].some(({ problem }) => problem === "failed")) process.exitCode = 1;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function progress(what: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${what}\n`);
}

function positive(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError("Expected a whole number above 0.");
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError(`Expected a regular expression: ${(error as Error).message}.`);
  }
}
