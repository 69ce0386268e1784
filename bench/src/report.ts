import { readFile, writeFile } from "node:fs/promises";
import { markdownTable } from "markdown-table";
import { type GoalOutcome, goalOutcomes } from "./goals.ts";
import { PHASES } from "./phases.ts";
import type { Results, Row, Sample } from "./results.ts";
import { formatSpread, spreadOf } from "./spread.ts";

const BEGIN = "<!-- results -->";
const END = "<!-- /results -->";
const MB = 1e6;

/** Everything that was found out, as Markdown. */
export function formatReport(
  results: Results,
  about: { date: Date; rounds: number; machine: readonly string[] },
): string {
  const rows = [...results.values()];
  const rounds = about.rounds === 1 ? "one round" : `${about.rounds} rounds`;
  return [
    `${about.date.toISOString().slice(0, 10)}, ${rounds}. ${about.machine.join(". ")}.`,
    "### What counts",
    goalTable(goalOutcomes(results)),
    ...[...new Set(rows.map(({ workload }) => workload))].flatMap((workload) => [
      `### ${workload.name}`,
      ...workload.trees.map(
        ({ name, files, bytes }) => `Tree ${name}: ${files} files, ${(bytes / MB).toFixed(0)} MB.`,
      ),
      rowTable(rows.filter((row) => row.workload === workload)),
    ]),
    ...partTable(rows),
    ...phaseTable(rows),
  ].join("\n\n");
}

/** Puts a report, or what else was found out, between the markers of a file. */
export async function writeReport(file: string | URL, report: string): Promise<void> {
  await writeFile(file, replaceReport(await readFile(file, "utf8"), report));
}

/**
 * The text with a report between its markers, in place of an earlier one.
 *
 * @throws Error if there are no markers
 */
export function replaceReport(text: string, report: string): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`Cannot write report: no "${BEGIN}" and "${END}"`);
  return `${text.slice(0, begin + BEGIN.length)}\n\n${report}\n\n${text.slice(end)}`;
}

function goalTable(outcomes: readonly GoalOutcome[]): string {
  return table(
    ["what", "found", "target", "met"],
    outcomes.map(({ goal, spread }) => [
      goal.name,
      spread ? formatSpread(spread) : "not measured",
      goal.target,
      spread && goal.met ? (goal.met(spread.median) ? "yes" : "no") : "",
    ]),
  );
}

function rowTable(rows: readonly Row[]): string {
  return table(
    [
      "program",
      "wall, s",
      "user + sys, s",
      "of daemon",
      "peak, MB",
      "of daemon",
      "disk, MB",
      "rate",
    ],
    rows.map((row) => [label(row), ...cells(row)]),
  );
}

function cells(row: Row): string[] {
  const { samples } = row;
  if (samples.length === 0) return [row.problem ?? "not measured", "", "", "", "", "", ""];
  const spread = (of: (sample: Sample) => number | undefined): string => {
    const values = samples.map(of).filter((value) => value !== undefined);
    return values.length > 0 ? formatSpread(spreadOf(values)) : "";
  };
  const middle = (of: (sample: Sample) => number | undefined): string =>
    spread(of).replace(/ \(.*/, "");
  const wall = spread(({ wallSeconds }) => wallSeconds);
  return [
    row.problem ? `${wall}, then ${row.problem}` : wall,
    middle(({ program }) => program.cpuSeconds),
    middle(({ daemon }) => daemon?.cpuSeconds),
    spread(({ program }) => program.peakBytes / MB),
    spread(({ daemon }) => daemon && daemon.peakBytes / MB),
    middle(({ diskBytes }) => diskBytes / MB),
    rate(row, spread),
  ];
}

function rate(row: Row, spread: (of: (sample: Sample) => number | undefined) => string): string {
  const { tree, reportsWork } = row.step;
  const byCount = (row.samples[0]?.work?.count ?? 1) > 1;
  if (reportsWork && byCount) return `${spread(({ work }) => work!.count! / work!.seconds)} /s`;
  if (reportsWork) return `${spread(({ work }) => work!.bytes! / work!.seconds / MB)} MB/s`;
  return tree ? `${spread(({ wallSeconds }) => tree.bytes / wallSeconds / MB)} MB/s` : "";
}

/** What rows say of parts of their time, in seconds. */
function partTable(rows: readonly Row[]): string[] {
  const found = rows.filter(({ samples }) => samples[0]?.work?.parts);
  if (found.length === 0) return [];
  const parts = Object.keys(found[0]!.samples[0]!.work!.parts!);
  const lines = found.map(({ name, samples }) => [
    name,
    ...parts.map((part) => formatSpread(spreadOf(samples.map(({ work }) => work!.parts![part]!)))),
    formatSpread(spreadOf(samples.map(({ work }) => work!.seconds))),
  ]);
  return ["### Primitives, seconds", table(["tree", ...parts, "sum"], lines)];
}

function phaseTable(rows: readonly Row[]): string[] {
  const lines = rows.flatMap(({ name, phases }) =>
    phases.map(({ process, thread, threads, seconds }) => {
      const sum = PHASES.reduce((sum, phase) => sum + seconds[phase], 0);
      const who = thread === "main" ? "main thread" : `${threads} other threads`;
      return [
        name,
        `${process === "daemon" ? "daemon, " : ""}${who}`,
        ...PHASES.map((phase) => share(seconds[phase] / sum)),
      ];
    }),
  );
  if (lines.length === 0) return [];
  return ["### Where time goes, % of thread time", table(["program", "who", ...PHASES], lines)];
}

function share(part: number): string {
  return part < 0.005 ? "" : (part * 100).toFixed(0);
}

function label({ subject, step }: Row): string {
  return `${subject.name}, ${step.name}`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const align = head.map((_, column) => (column === 0 ? "l" : "r"));
  return markdownTable(
    [head, ...rows].map((row) => row.map((cell) => cell.replaceAll("|", "\\|"))),
    { align },
  );
}
