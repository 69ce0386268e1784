import type { AbortOptions } from "@tvix/castore";
import { CastoreError } from "@tvix/castore";
import { type PathInfoService, ReferenceCandidates, StorePath } from "@tvix/store";
import { readInputFile } from "../read-input-file.ts";

/** The store paths that contents may refer to. */
export interface Candidates {
  readonly references: ReferenceCandidates;
  /** Whether paths that are imported become candidates for those after them. */
  readonly grow: boolean;
}

/**
 * Collects the store paths that contents may refer to.
 *
 * @param what `auto` for all that the PathInfo service lists, or the path of a file with a store path a line
 * @throws CastoreError `invalid_argument` for a file with anything else in it; whatever reading it and the service throw
 */
export async function findCandidates(
  what: string,
  pathInfoService: PathInfoService,
  options: AbortOptions,
): Promise<Candidates> {
  const references = new ReferenceCandidates();
  if (what === "auto") {
    for await (const { storePath } of pathInfoService.list(options)) {
      references.add(storePath.hashPart);
    }
    return { references, grow: true };
  }
  const lines = (await readInputFile("list of references", what)).toString().split("\n");
  for (const [i, line] of lines.entries()) {
    const text = line.trim();
    if (text !== "") references.add(parseLine(text, `${JSON.stringify(what)}, line ${i + 1}`));
  }
  return { references, grow: false };
}

function parseLine(text: string, where: string): Uint8Array {
  try {
    const parse = text.includes("/") ? StorePath.parseAbsolute : StorePath.parse;
    return parse(text).hashPart;
  } catch (error) {
    if (!(error instanceof CastoreError)) throw error;
    const message = `Cannot read list of references ${where}: ${error.message}`;
    throw new CastoreError("invalid_argument", message, { cause: error });
  }
}
