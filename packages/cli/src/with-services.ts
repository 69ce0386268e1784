import { hasCode } from "@tvix/castore";
import type { ServiceOptions } from "./addresses.ts";
import { Interrupted } from "./interrupt.ts";
import { notice, noticeStoreEvent } from "./notices.ts";
import { OutputError } from "./output.ts";
import { reportFailure } from "./run.ts";
import { openServices, type Services } from "./services.ts";
import { startTracing, traceCommand } from "./tracing.ts";
import type { TracingOptions } from "./tracing-option.ts";

/**
 * Opens the three services for the body of a command, which is traced. Events of stores become lines on stderr.
 *
 * @param command its name, such as "cat"
 */
export async function withServices(
  command: string,
  { otlp, ...addresses }: ServiceOptions & TracingOptions,
  signal: AbortSignal,
  body: (services: Services) => Promise<void>,
): Promise<void> {
  const tell = (message: string) => notice("warn", message);
  await using _tracing = await startTracing(otlp === undefined ? {} : { otlp }, tell);
  await traceCommand(`tvix-store ${command}`, async () => {
    await using services = await openServices(addresses, {
      signal,
      onEvent: noticeStoreEvent,
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
