import { hasCode } from "@tvix/castore";
import type { ServiceOptions } from "../options/addresses.ts";
import { reportFailure } from "../run.ts";
import { openServices, type Services } from "../services.ts";
import { startTracing, traceCommand } from "../telemetry/tracing.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import { Interrupted } from "../terminal/interrupt.ts";
import {
  type NoticeLevel,
  notice,
  noticeStoreEvent,
  tellStoreEvents,
} from "../terminal/notices.ts";
import { OutputError } from "../terminal/output.ts";

/** What a command that reads or changes a store hands to {@link withServices}. */
interface ServicesContext {
  readonly signal: AbortSignal;
  readonly tell?: (message: string, level: NoticeLevel) => void;
}

/**
 * Opens the three services, which must exist, for the body of a command, which is traced. Events of stores become lines on stderr.
 *
 * @param command its name, such as "cat"
 * @param context.tell writes a notice, such as that of a progress. Default: written plainly
 */
export async function withServices(
  command: string,
  { otlp, ...addresses }: ServiceOptions & TracingOptions,
  { signal, tell }: ServicesContext,
  body: (services: Services) => Promise<void>,
): Promise<void> {
  await using _tracing = await startTracing(otlp === undefined ? {} : { otlp }, (message) =>
    tell === undefined ? notice("warn", message) : tell(message, "warn"),
  );
  await traceCommand(`tvix-store ${command}`, async () => {
    await using services = await openServices(addresses, {
      signal,
      create: false,
      onEvent: tell === undefined ? noticeStoreEvent : tellStoreEvents(tell),
    });
    await body(services);
  });
}

/**
 * Does something for each of several arguments, in order. One that fails is reported on stderr and does not stop the
 * others; the process exits with 1 at its end. A store that cannot be reached, and a signal, stop all.
 */
export async function forEachArgument(
  args: readonly string[],
  body: (argument: string) => Promise<void>,
): Promise<void> {
  for (const argument of args) {
    try {
      await body(argument);
    } catch (error) {
      const stopsAll = error instanceof Interrupted || error instanceof OutputError;
      if (stopsAll || hasCode(error, "unavailable")) throw error;
      reportFailure(error);
    }
  }
}
