import { Command } from "commander";
import { embeddedAddresses, serviceOptions } from "../options/addresses.ts";
import { cacheOptions } from "../options/cache-options.ts";
import type { ServeOptions } from "../options/serve-options.ts";
import { serverOptions } from "../options/server-options.ts";
import { storeModeOption } from "../options/store-mode.ts";
import { upstreamOptions } from "../options/upstream-options.ts";
import { tracingOption } from "../telemetry/tracing-option.ts";
import { addHelpEnd, SERVER_STATUSES } from "./help-end.ts";

/** `tvix-store daemon` */
export function daemonCommand(): Command {
  const command = new Command("daemon")
    .description(
      "Serves a store to gRPC, gRPC-web and Connect clients, and to Nix as a binary cache",
    )
    .action(async (options: ServeOptions) => {
      const { serveDaemon } = await import("../serve/serve.ts"); // loaded here, as few commands need a server
      const { run } = await import("../run.ts");
      await run((interrupt) => serveDaemon(options, interrupt));
      process.exit(); // unread log lines do not keep it alive
    });
  const options = [
    ...serverOptions("localhost:8000"),
    ...serviceOptions(embeddedAddresses()),
    ...cacheOptions(),
    ...upstreamOptions(),
    storeModeOption(),
    tracingOption(),
  ];
  for (const option of options) command.addOption(option);
  return addHelpEnd(command, {
    about: "Without addresses of stores, it keeps everything below the state folder of this user.",
    examples: [
      ["tvix-store daemon", "serves the stores of this user on localhost:8000"],
      [
        "tvix-store daemon -l '[::]:8000' --auth-file /etc/tvix-store/auth.toml",
        "serves other machines as well, to those who have a token",
      ],
      ["tvix-store daemon --upstream https://cache.nixos.org", "caches another binary cache"],
    ],
    statuses: SERVER_STATUSES,
  });
}
