import { Option } from "commander";
import { type GuardingOptions, guardingOptions } from "./guarding-options.ts";

/** Options of a command that serves. */
export interface ServerOptions extends GuardingOptions {
  /** Addresses to listen on, in the syntax of `parseListenAddress`. */
  listenAddress: string[];
  /** The lowest level of log lines to write, a level of pino. */
  logLevel: string;
}

/** Returns the options of a command that serves, with their environment variables. */
export function serverOptions(defaultAddress: string): Option[] {
  return [
    new Option(
      "-l, --listen-address <address...>",
      "address to listen on: host:port, [IPv6]:port or the path of a unix socket; may be repeated",
    )
      .env("LISTEN_ADDRESS")
      .default([defaultAddress]),
    new Option("--log-level <level>", "lowest level of log lines to write on stderr")
      .env("LOG_LEVEL")
      .choices(["trace", "debug", "info", "warn", "error", "silent"])
      .default("info"),
    ...guardingOptions(),
  ];
}
