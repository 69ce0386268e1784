import { InvalidArgumentError, Option } from "commander";
import type { LogOptions } from "../terminal/notices.ts";
import {
  type GuardingOptions,
  guardingOptions,
  parseCount,
  parseTime,
} from "./guarding-options.ts";

/** Options of a command that serves. */
export interface ServerOptions extends GuardingOptions, LogOptions {
  /** Addresses to listen on, in the syntax of `parseListenAddress`. */
  listenAddress: string[];
  /** Whether to replace a unix socket on which another process listens. */
  unixListenUnlink?: boolean;
  /** Permissions of the files of unix sockets. */
  unixListenChmod?: number;
  /** Addresses that metrics are served on, and nothing else. */
  metricsAddress: string[];
  /** How many processes serve. */
  workers: number;
  /** How long a shutdown waits for calls in flight, in milliseconds. */
  shutdownTimeout: number;
}

/** Returns the options of a command that serves, with their environment variables. */
export function serverOptions(defaultAddress: string): Option[] {
  return [
    new Option(
      "-l, --listen-address <address...>",
      "address to listen on: host:port, [IPv6]:port, the path of a unix socket, @name (an abstract one), sd-listen or sd-listen:name (sockets of systemd), or inetd (the connection on stdin); may be repeated",
    )
      .env("LISTEN_ADDRESS")
      .default([defaultAddress]),
    new Option(
      "--unix-listen-unlink",
      "replace a unix socket even if another process listens on it (default: only one whose process has ended)",
    ),
    new Option(
      "--unix-listen-chmod <mode>",
      "who may connect to unix sockets: owner, group, everybody, or an octal mode such as 660 (default: by the umask)",
    )
      .env("UNIX_LISTEN_CHMOD")
      .argParser(parseMode),
    new Option(
      "--metrics-address <address...>",
      "address of its own for /metrics, without tokens and TLS, in the forms of --listen-address (default: /metrics is on those)",
    )
      .env("METRICS_ADDRESS")
      .default([], "none"),
    new Option("--workers <number>", "processes that serve, on the same addresses and stores")
      .env("WORKERS")
      .argParser(parseCount)
      .default(1),
    new Option(
      "--shutdown-timeout <time>",
      "how long a shutdown waits for calls in flight before it cuts them, in seconds or such as 2m",
    )
      .env("SHUTDOWN_TIMEOUT")
      .argParser((text) => parseTime(/^[0-9]+$/.test(text) ? `${text}s` : text))
      .default(60_000, "1m"),
    ...guardingOptions(),
  ];
}

const MODES: Readonly<Record<string, number>> = { owner: 0o600, group: 0o660, everybody: 0o666 };

function parseMode(text: string): number {
  const mode = MODES[text.toLowerCase()];
  if (mode !== undefined) return mode;
  if (/^0?[0-7]{3}$/.test(text)) return Number.parseInt(text, 8);
  throw new InvalidArgumentError(
    `expected owner, group, everybody or an octal mode such as 660, found ${JSON.stringify(text)}`,
  );
}
