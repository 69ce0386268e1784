import { CastoreError } from "@tvix/castore";

/** The error of every operation in this package. Its codes are those of {@link CastoreError}. */
export class StoreError extends CastoreError {
  override readonly name = "StoreError";
}

/**
 * Runs `parse`, and puts `context` in front of what it throws: `${context}: ${message}`, with the same code. The
 * context names the field that the value came from.
 */
export function inContext<T>(context: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof CastoreError)) throw error;
    throw new StoreError(error.code, `${context}: ${error.message}`, { cause: error });
  }
}

/** Longest text that a message repeats, in characters: more than any valid store path has. */
const MAX_SHOWN = 300;

/** Shows text in a message: as {@link escapeText} does, in quotes. */
export function quoteText(text: string): string {
  const cut = text.length > MAX_SHOWN ? `... (${text.length} characters)` : "";
  return `"${escapeText(text.slice(0, MAX_SHOWN))}"${cut}`;
}

/** Shows text in a message, without what a terminal would act on: `\u{N}` in place of each such character. */
export function escapeText(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}
