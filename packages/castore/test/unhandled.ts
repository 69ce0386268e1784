import { setTimeout as sleep } from "node:timers/promises";

/** Collects unhandled rejections during an action and shortly after. */
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
