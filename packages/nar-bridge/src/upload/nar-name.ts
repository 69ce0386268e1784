import type { Compression } from "@tvix/castore";
import { parseNixHash } from "@tvix/store";
import { HttpError } from "../http-error.ts";

/** The name of a file below `nar/` that clients push to. */
export interface NarName {
  /** The name itself, such as `<hash>.nar.xz`. */
  readonly text: string;
  /** The SHA-256 digest in it, of the file or of the NAR, 32 bytes. */
  readonly sha256: Uint8Array;
  /** The compression that it ends with; `undefined` for `.nar`, as which Nix pushes plain files and those of gzip. */
  readonly compression: Compression | undefined;
}

const COMPRESSION_OF: Readonly<Record<string, Compression | undefined>> = {
  ".nar": undefined,
  ".nar.br": "br",
  ".nar.bz2": "bzip2",
  ".nar.gz": "gzip",
  ".nar.xz": "xz",
  ".nar.zst": "zstd",
};

/** Parses the name of a file below `nar/`; `undefined` for any other than clients of Nix push to. */
export function parseNarName(text: string): NarName | undefined {
  const hashEnd = text.indexOf(".");
  const ending = text.slice(hashEnd);
  if (!Object.hasOwn(COMPRESSION_OF, ending)) return undefined;
  try {
    const { digest } = parseNixHash(`sha256:${text.slice(0, hashEnd)}`);
    return { text, sha256: digest, compression: COMPRESSION_OF[ending] };
  } catch {
    return undefined; // it is no hash
  }
}

/**
 * Parses the name of a file below `nar/` that is to be stored.
 *
 * @throws HttpError 400 for any other name than clients of Nix push to
 */
export function expectNarName(text: string): NarName {
  const name = parseNarName(text);
  if (name !== undefined) return name;
  const endings = Object.keys(COMPRESSION_OF).join(", ");
  const reason = `expected a SHA-256 in nixbase32 and one of ${endings}`;
  throw new HttpError(400, `Cannot store ${JSON.stringify(text)}: ${reason}`);
}
