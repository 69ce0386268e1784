import { move, transferableSymbol, valueSymbol } from "piscina";

/** A result of a task whose buffers are moved to whoever gets it, not copied. */
export function moved<T>(value: T, buffers: readonly ArrayBuffer[]): T {
  const transferable = { [transferableSymbol]: buffers, [valueSymbol]: value };
  return move(transferable as unknown as Parameters<typeof move>[0]) as T;
}
