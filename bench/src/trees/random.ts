import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";
import type { RandomGenerator } from "pure-rand/types/RandomGenerator";

/** A generator that gives the same numbers for the same seed. */
export function seeded(seed: number): RandomGenerator {
  const rng = xoroshiro128plus(seed);
  for (let i = 0; i < 16; i++) rng.next(); // the first numbers of near seeds are alike
  return rng;
}

/** A number from 0 up to, but without, 1. */
export function fraction(rng: RandomGenerator): number {
  return (rng.next() >>> 0) / 2 ** 32;
}

/** A whole number from 0 up to, but without, `end`, each as likely. */
export function integer(rng: RandomGenerator, end: number): number {
  return Math.floor(fraction(rng) * end);
}

/** A whole number from 0 up to, but without, `end`, small ones far more likely, as words of a text are. */
export function skewed(rng: RandomGenerator, end: number): number {
  return Math.floor(fraction(rng) ** 3 * end);
}

/** True with a probability. */
export function chance(rng: RandomGenerator, probability: number): boolean {
  return fraction(rng) < probability;
}

/** A number of which the logarithm is normally distributed. */
export function logNormal(rng: RandomGenerator, median: number, sigma: number): number {
  const radius = Math.sqrt(-2 * Math.log(1 - fraction(rng)));
  return median * Math.exp(sigma * radius * Math.cos(2 * Math.PI * fraction(rng)));
}
