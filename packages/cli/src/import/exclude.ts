import { CastoreError, type EntryFilter } from "@tvix/castore";
import picomatch from "picomatch";
import { escapeBytes } from "../arguments.ts";

/**
 * Returns a filter that leaves out what one of the patterns matches, as `import --help` describes them.
 *
 * @param patterns globs. One with a slash, other than at its end, is matched against the path below the root, any other
 *   against the last name of the path; a slash at the end has it match folders only
 * @throws CastoreError `invalid_argument` for a pattern without a name
 */
export function excludeFilter(patterns: readonly string[]): EntryFilter {
  const filters = patterns.map(filterOf);
  return (path, isFolder) => {
    const text = escapeBytes(Buffer.from(path));
    return filters.some((matches) => matches(text, isFolder));
  };
}

function filterOf(pattern: string): (path: string, isFolder: boolean) => boolean {
  const [, glob = "", slash] = /^(.*?)(\/*)$/s.exec(pattern)!;
  const isPath = glob.includes("/");
  const relative = glob.replace(/^(\.?\/+)+/, "");
  if (relative === "") {
    const message = `Cannot use the pattern ${JSON.stringify(pattern)} of --exclude: expected a name or a path below what is imported`;
    throw new CastoreError("invalid_argument", message);
  }
  const matches = picomatch(relative, { dot: true, nonegate: true });
  return (path, isFolder) => {
    if (slash && !isFolder) return false;
    return matches(isPath ? path : path.slice(path.lastIndexOf("/") + 1));
  };
}
