import { Command } from "commander";
import { daemonAddresses, serviceOptions } from "../options/addresses.ts";
import { cacheOptions } from "../options/cache-options.ts";
import type { ServeOptions } from "../options/serve-options.ts";
import { serverOptions } from "../options/server-options.ts";
import { storeModeOption } from "../options/store-mode.ts";
import { upstreamOptions } from "../options/upstream-options.ts";
import { tracingOption } from "../telemetry/tracing-option.ts";
import { addHelpEnd, SERVER_STATUSES } from "./help-end.ts";

/** `tvix-store nar-bridge` */
export function narBridgeCommand(): Command {
  const command = new Command("nar-bridge")
    .description("Serves a store to Nix as a binary cache over HTTP, and nothing else")
    .action(async (options: ServeOptions) => {
      const { serveNarBridge } = await import("../serve/serve.ts"); // loaded here, as few commands need a server
      const { run } = await import("../run.ts");
      await run((interrupt) => serveNarBridge(options, interrupt));
      process.exit(); // unread log lines do not keep it alive
    });
  const options = [
    ...serverOptions("localhost:9000"),
    ...serviceOptions(daemonAddresses()),
    ...cacheOptions(),
    ...upstreamOptions(),
    storeModeOption(),
    tracingOption(),
  ];
  for (const option of options) command.addOption(option);
  return addHelpEnd(command, {
    about: "Without addresses of stores, it serves those of the daemon on this machine.",
    examples: [
      ["tvix-store nar-bridge", "serves the daemon on this machine to Nix, on localhost:9000"],
      [
        "tvix-store nar-bridge --signing-key-file secret-key --sign served",
        "signs whatever it serves",
      ],
    ],
    statuses: SERVER_STATUSES,
  });
}
