import { setTimeout as sleep } from "node:timers/promises";

/** What is rejected while something runs, and shortly after, that nobody handles. */
export async function unhandledDuring(run: () => Promise<void>): Promise<unknown[]> {
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => void unhandled.push(reason);
  process.on("unhandledRejection", note);
  try {
    await run();
    await sleep(10);
  } finally {
    process.off("unhandledRejection", note);
  }
  return unhandled;
}
