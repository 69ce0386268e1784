import { once } from "node:events";
import { registerCastoreServices } from "@tvix/castore/rpc";
import { BlobService, DirectoryService } from "@tvix/proto/castore";
import { PathInfoService } from "@tvix/proto/store";
import { RenderingNarCalculationService } from "@tvix/store";
import { registerStoreServices } from "@tvix/store/rpc";
import { Command, Option } from "commander";
import { pino } from "pino";
import type { Interrupt } from "../interrupt.ts";
import { run } from "../run.ts";
import { parseListenAddress } from "../server/listen-address.ts";
import { startServer } from "../server/server.ts";
import {
  embeddedAddresses,
  openServices,
  type ServiceAddresses,
  serviceOptions,
} from "../services.ts";

interface DaemonOptions extends ServiceAddresses {
  listenAddress: string[];
  logLevel: string;
}

/** `tvix-store daemon` */
export function daemonCommand(): Command {
  const command = new Command("daemon")
    .description("Serves a store to gRPC, gRPC-web and Connect clients")
    .addOption(
      new Option(
        "-l, --listen-address <address...>",
        "where to listen: host:port, [::]:port, or the path of a unix socket; may be repeated",
      )
        .env("LISTEN_ADDRESS")
        .default(["localhost:8000"]),
    )
    .addOption(
      new Option("--log-level <level>", "the least severe log lines to write, on stderr")
        .env("LOG_LEVEL")
        .choices(["trace", "debug", "info", "warn", "error", "silent"])
        .default("info"),
    )
    .action((options: DaemonOptions) => run((interrupt) => serve(options, interrupt)));
  for (const option of serviceOptions(embeddedAddresses())) command.addOption(option);
  return command;
}

async function serve(options: DaemonOptions, interrupt: Interrupt): Promise<void> {
  const logger = pino({ level: options.logLevel }, pino.destination(2));
  await using services = await openServices(options, { signal: interrupt.signal });
  await using server = await startServer({
    addresses: options.listenAddress,
    routes(router) {
      registerCastoreServices(router, services);
      registerStoreServices(router, {
        pathInfoService: services.pathInfoService,
        narCalculationService: new RenderingNarCalculationService(services),
      });
    },
    services: [BlobService, DirectoryService, PathInfoService],
    logger,
  });
  warnOfOpenDoors(options.listenAddress, (address) =>
    logger.warn({ address }, "anybody who reaches this address can read and write the store"),
  );
  logger.info({ addresses: server.addresses }, "listening");

  if (!interrupt.signal.aborted) await once(interrupt.signal, "abort");
  logger.info("shutting down: waiting for calls in flight, a second signal ends them");
  interrupt.urgent.addEventListener("abort", () => void server.terminate());
  await server.shutdown();
}

/** Nothing guards an address but the machine or the permissions of a socket that it is local to. */
function warnOfOpenDoors(addresses: readonly string[], warn: (address: string) => void): void {
  for (const address of addresses) {
    if (!parseListenAddress(address).local) warn(address);
  }
}
