import type { Work } from "../subject.ts";

/** Tells the bench, on stdout, what a part of this program took. */
export function reportWork(work: Work): void {
  process.stdout.write(`${JSON.stringify(work)}\n`);
}

/** Runs something and gives the seconds that it took. */
export async function secondsOf(body: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await body();
  return (performance.now() - start) / 1000;
}
