import { isUtf8 } from "node:buffer";
import { quoteBytes } from "@tvix/castore";

/** What a terminal may act on. */
const ACTED_ON = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

/**
 * Returns a name or a path for the output: its bytes as they are, unless stdout is a terminal and it has others than
 * printable text in UTF-8. Then it is quoted.
 */
export function shownName(name: Uint8Array): string | Uint8Array {
  if (!process.stdout.isTTY) return name;
  const isPrintable = isUtf8(name) && !ACTED_ON.test(Buffer.from(name).toString());
  return isPrintable ? name : quoteBytes(name);
}
