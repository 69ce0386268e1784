/**
 * Maps some of many items, all of them by one call, which is not made for none.
 *
 * @param pick returns what to map in place of an item; `undefined` leaves it out
 * @param map returns the result for each, in order
 * @returns the results in the places of their items; `undefined` in all others
 */
export async function mapSome<Item, Picked extends {}, Result>(
  items: readonly Item[],
  pick: (item: Item, i: number) => Picked | undefined,
  map: (picked: readonly Picked[]) => Promise<readonly Result[]>,
): Promise<(Result | undefined)[]> {
  const picked: Picked[] = [];
  const places: number[] = [];
  for (const [i, item] of items.entries()) {
    const one = pick(item, i);
    if (one === undefined) continue;
    picked.push(one);
    places.push(i);
  }
  const mapped = new Array<Result | undefined>(items.length).fill(undefined);
  if (picked.length === 0) return mapped;
  const results = await map(picked);
  for (const [i, place] of places.entries()) mapped[place] = results[i];
  return mapped;
}
