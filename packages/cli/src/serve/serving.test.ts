import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Interrupt, Interrupted } from "../terminal/interrupt.ts";
import { ServiceManager } from "./service-manager.ts";
import { serveUntilStopped, unlessStopped } from "./serving.ts";

const NEVER = new Promise<never>(() => undefined);

let interrupt: Interrupt;
beforeEach(() => {
  interrupt = new Interrupt();
});
afterEach(() => interrupt[Symbol.dispose]());

/** Sends this process a signal, and waits until it has come. */
async function send(signal: NodeJS.Signals): Promise<void> {
  const came = new Promise((resolve) => process.once(signal, resolve));
  process.kill(process.pid, signal);
  await came;
}

describe("unlessStopped", () => {
  it("returns what was opened, or throws why it was not", async () => {
    expect(await unlessStopped(Promise.resolve("opened"), interrupt, 1)).toBe("opened");
    const failing = Promise.reject(new Error("no such store"));
    await expect(unlessStopped(failing, interrupt, 1)).rejects.toThrow("no such store");
  });

  it("returns nothing where the opening stopped at a signal", async () => {
    const opening = new Promise<string>((_, reject) => {
      interrupt.signal.addEventListener("abort", () => reject(interrupt.signal.reason));
    });
    const result = unlessStopped(opening, interrupt, 60_000);
    await send("SIGTERM");
    expect(await result).toBeUndefined();
    expect(interrupt.signal.reason).toBeInstanceOf(Interrupted);
  });

  it("does not wait for an opening that goes on, beyond a time limit or a second signal", async () => {
    const limited = unlessStopped(NEVER, interrupt, 1);
    const unlimited = unlessStopped(NEVER, interrupt, 60_000);
    await send("SIGTERM");
    expect(await limited).toBeUndefined();
    await send("SIGINT");
    expect(await unlimited).toBeUndefined();
  });
});

describe("serveUntilStopped", () => {
  it("cuts calls in flight where both signals come at once", async () => {
    const stop = new AbortController();
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const server = {
      exhausted: NEVER,
      shutdown: () => ended,
      terminate: async () => resolve(),
    };
    const serving = serveUntilStopped(server, {
      interrupt: { signal: stop.signal, urgent: stop.signal },
      manager: new ServiceManager(() => undefined, {}),
      logger: pino({ level: "silent" }),
      shutdownTimeoutMs: 600_000,
    });
    stop.abort();
    await serving;
  });
});
