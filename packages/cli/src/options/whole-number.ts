import { InvalidArgumentError } from "commander";

/**
 * Returns what parses the value of an option that is a whole number.
 *
 * @param pattern what its text looks like
 * @param expected what is expected, for the message, such as "a number from 1"
 */
export function wholeNumber(pattern: RegExp, expected: string): (text: string) => number {
  return (text) => {
    if (pattern.test(text)) return Number(text);
    throw new InvalidArgumentError(`expected ${expected}, found ${JSON.stringify(text)}`);
  };
}
