import { setImmediate } from "node:timers";

let actions: (() => void)[] = [];

/**
 * Runs an action when the event loop has read whatever its connections have for it, after those that were given before. Answers
 * to many clients then leave in a row: each one that leaves by itself wakes a client that sleeps, which takes as long as
 * finding the answer. Where there is one client, nothing waits.
 *
 * @param action must not throw
 */
export function atEndOfTurn(action: () => void): void {
  if (actions.push(action) === 1) setImmediate(runAll);
}

/** Resolves when the actions of this turn have run: what follows holds up none of the answers among them. */
export function endOfTurn(): Promise<void> {
  return new Promise(atEndOfTurn);
}

function runAll(): void {
  const all = actions;
  actions = [];
  for (const action of all) action();
}
