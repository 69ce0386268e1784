import { Command, Option } from "commander";
import { embeddedAddresses, serviceOptions } from "../addresses.ts";
import type { DaemonOptions } from "../serve.ts";
import { tracingOption } from "../tracing-option.ts";
import { useSmallMalloc } from "./small-malloc.ts";

/** `tvix-store daemon` */
export function daemonCommand(): Command {
  const command = new Command("daemon")
    .description("Serves a store to gRPC, gRPC-web and Connect clients")
    .addOption(
      new Option(
        "-l, --listen-address <address...>",
        "address to listen on: host:port, [IPv6]:port or the path of a unix socket; may be repeated",
      )
        .env("LISTEN_ADDRESS")
        .default(["localhost:8000"]),
    )
    .addOption(
      new Option("--log-level <level>", "lowest level of log lines to write on stderr")
        .env("LOG_LEVEL")
        .choices(["trace", "debug", "info", "warn", "error", "silent"])
        .default("info"),
    )
    .action(async (options: DaemonOptions) => {
      useSmallMalloc();
      const { serve } = await import("../serve.ts"); // loaded here, as no other command needs a server
      const { run } = await import("../run.ts");
      await run((interrupt) => serve(options, interrupt));
      process.exit(); // unread log lines do not keep it alive
    });
  for (const option of serviceOptions(embeddedAddresses())) command.addOption(option);
  return command.addOption(tracingOption());
}
