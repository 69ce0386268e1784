/**
 * Expects of every test file that it leaves its process as it found it, which the next one shares. A file that cannot
 * is named `*.alone.test.ts`, and has a process of its own.
 */
import { afterAll, expect } from "vitest";

/** What all modules of a process have in common, as text. */
function processWide(): Record<string, unknown> {
  // Where the API of OpenTelemetry keeps what is registered.
  const telemetry = Reflect.get(globalThis, Symbol.for("opentelemetry.js.api.1")) ?? {};
  return {
    env: { ...process.env },
    folder: process.cwd(),
    umask: process.umask(),
    telemetry: Object.keys(telemetry).filter((key) => key !== "version"),
    unhandledRejection: process.listenerCount("unhandledRejection"),
  };
}

const before = processWide();
afterAll(() => expect(processWide(), "the process after this file").toEqual(before));
