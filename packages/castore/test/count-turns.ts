/** Counts the turns of the event loop that an action leaves to other events. */
export async function countTurns(action: () => Promise<unknown>): Promise<number> {
  let turns = 0;
  let immediate = setImmediate(function count() {
    turns += 1;
    immediate = setImmediate(count);
  });
  try {
    await action();
    return turns;
  } finally {
    clearImmediate(immediate);
  }
}
