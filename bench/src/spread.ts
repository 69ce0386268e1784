import { max, median, min } from "simple-statistics";

/** The middle of several measurements, and how far they lie apart. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** Of at least one number. */
export function spreadOf(numbers: readonly number[]): Spread {
  const values = [...numbers];
  return { median: median(values), min: min(values), max: max(values) };
}

/** `1.25 (1.20-1.31)`, or the number alone where there is one. */
export function formatSpread({ median, min, max }: Spread): string {
  const digits = digitsFor(median);
  const [middle, low, high] = [median, min, max].map((value) => value.toFixed(digits));
  return low === high ? middle! : `${middle} (${low}-${high})`;
}

function digitsFor(value: number): number {
  return value >= 100 ? 0 : value >= 10 ? 1 : 2;
}
