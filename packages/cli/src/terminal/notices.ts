import type { StoreEvent } from "@tvix/castore";
import { writeStderr } from "./output.ts";

/** The levels of notices and log lines, the least important first. `silent` shows none. */
export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "silent"] as const;

/** A level of notices and log lines. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** The level of a notice. */
export type NoticeLevel = Exclude<LogLevel, "silent">;

/** How notices and log lines are written. */
export const LOG_FORMATS = ["auto", "pretty", "json"] as const;

/** How notices and log lines are written: `auto` is JSON for the log of a server that goes to no terminal. */
type LogFormat = (typeof LOG_FORMATS)[number];

/** Options of every command about what it writes on stderr. */
export interface LogOptions {
  /** The lowest level to write. */
  logLevel: LogLevel;
  logFormat: LogFormat;
  /** Whether to write nothing but errors. */
  quiet?: boolean;
}

/** Numbers of the levels in JSON, as pino has them. */
const NUMBERS = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, silent: 60 } as const;

let shown: LogOptions = { logLevel: "info", logFormat: "auto" };

/** Sets how the notices of this process are written, as its stderr is one too. */
export function configureNotices(options: LogOptions): void {
  shown = options;
}

/** Returns the lowest level that options ask for. */
export function lowestLevel({ logLevel, quiet }: LogOptions): LogLevel {
  return quiet && NUMBERS[logLevel] < NUMBERS.error ? "error" : logLevel;
}

/**
 * Writes a notice on stderr, if its level is shown: one line of text, or of JSON with `--log-format=json`.
 *
 * @param fields further properties of the JSON
 */
export function notice(
  level: NoticeLevel,
  message: string,
  fields?: Readonly<Record<string, unknown>>,
): void {
  if (NUMBERS[level] < NUMBERS[lowestLevel(shown)]) return;
  const line =
    shown.logFormat === "json"
      ? JSON.stringify({ level: NUMBERS[level], time: Date.now(), ...fields, msg: message })
      : `tvix-store: ${message}`;
  writeStderr(`${line}\n`);
}

/** Returns the level of the notice or log line of an event of a store: an error for damage, a warning otherwise. */
export function levelOfEvent({ type }: StoreEvent): "error" | "warn" {
  return type === "corrupt" ? "error" : "warn";
}

/** Writes the notice of an event of a store. */
export function noticeStoreEvent(event: StoreEvent): void {
  const { kind, store, message } = event;
  notice(levelOfEvent(event), `${store}: ${message}`, { store, kind });
}

/** Returns what tells the events of stores. */
export function tellStoreEvents(
  tell: (message: string, level: NoticeLevel) => void,
): (event: StoreEvent) => void {
  return (event) => tell(`${event.store}: ${event.message}`, levelOfEvent(event));
}
