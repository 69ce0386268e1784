import { closestMatch } from "leven";

/** How many characters may differ from what was meant. */
const MAX_DISTANCE = 3;

/** The longest list of valid words that a message with a suggestion has. */
export const MAX_LISTED = 12;

/**
 * Returns what was probably meant by a mistyped word, for a message: `did you mean "path"?`, and what is valid where that
 * is a short list, or nothing is near.
 */
export function suggest(word: string, valid: readonly string[]): string {
  const listed = `expected ${valid.join(", ") || "none"}`;
  const nearest = nearestOf(word, valid);
  if (nearest === undefined) return listed;
  const guess = `did you mean "${nearest}"?`;
  return valid.length <= MAX_LISTED ? `${guess} (${listed})` : guess;
}

/** Returns the valid word that a mistyped one is nearest to; `undefined` if none is near. */
export function nearestOf(word: string, valid: readonly string[]): string | undefined {
  const maxDistance = Math.min(MAX_DISTANCE, Math.floor(word.length / 2));
  return closestMatch(word, valid, { maxDistance });
}
