import { once } from "node:events";
import { setDefaultHighWaterMark } from "node:stream";
import { castoreServices } from "@tvix/castore/rpc";
import { CachingNarCalculationService, RenderingNarCalculationService } from "@tvix/store";
import { storeServices } from "@tvix/store/rpc";
import { pino } from "pino";
import type { ServiceOptions } from "./addresses.ts";
import type { Interrupt } from "./interrupt.ts";
import { LogWriter } from "./log-writer.ts";
import { parseListenAddress } from "./server/listen-address.ts";
import { startServer } from "./server/server.ts";
import { openServices } from "./services.ts";
import { startTracing } from "./tracing.ts";
import type { TracingOptions } from "./tracing-option.ts";

/**
 * How many bytes a stream of Node.js buffers, in bytes: one for each call that waits for memory. Whatever is fast reads and
 * writes past these buffers.
 */
const STREAM_BYTES = 8 * 1024;

/** Options of {@link serve}. */
export interface DaemonOptions extends ServiceOptions, TracingOptions {
  /** Addresses to listen on, in the syntax of {@link parseListenAddress}. */
  listenAddress: string[];
  /** The lowest level of log lines to write, a level of pino. */
  logLevel: string;
}

/** Runs a daemon until it is interrupted, then waits for the calls in flight. */
export async function serve(options: DaemonOptions, interrupt: Interrupt): Promise<void> {
  await using log = new LogWriter((lost) =>
    logger.warn({ lost }, "log lines dropped: stderr took no more"),
  );
  const logger = pino({ level: options.logLevel }, log);
  setDefaultHighWaterMark(false, STREAM_BYTES);
  await using _tracing = await startTracing(options, (message) => logger.warn(message));
  await using services = await openServices(options, {
    signal: interrupt.signal,
    onEvent({ type, kind, store, message }) {
      logger[type === "corrupt" ? "error" : "warn"]({ store, kind }, message);
    },
  });
  await using server = await startServer({
    addresses: options.listenAddress,
    services: [
      ...castoreServices(services),
      ...storeServices({
        pathInfoService: services.pathInfoService,
        narCalculationService: new CachingNarCalculationService({
          inner: new RenderingNarCalculationService(services),
        }),
      }),
    ],
    logger,
  });
  warnOfOpenAddresses(options.listenAddress, (address) =>
    logger.warn(
      { address },
      "no authentication: everybody who reaches this address can read and write the store",
    ),
  );
  logger.info({ addresses: server.addresses }, "listening");

  if (!interrupt.signal.aborted) await once(interrupt.signal, "abort");
  logger.info("shutting down: waiting for calls in flight, a second signal ends them");
  interrupt.urgent.addEventListener("abort", () => void server.terminate());
  await server.shutdown();
}

/** Warns of addresses that other machines can reach, as there is no authentication. */
function warnOfOpenAddresses(addresses: readonly string[], warn: (address: string) => void): void {
  for (const address of addresses) {
    if (!parseListenAddress(address).local) warn(address);
  }
}
