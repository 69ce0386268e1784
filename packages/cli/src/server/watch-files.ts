import { unwatchFile, watchFile } from "node:fs";

/** How often files are looked at, in milliseconds. */
const INTERVAL_MS = 1_000;

/**
 * Calls back when a file has changed, or another one has taken its place, also behind a symlink: the files are looked at
 * every second. Disposing ends it.
 */
export function watchFiles(paths: readonly string[], onChange: () => void): Disposable {
  const listener = () => onChange(); // one of its own
  for (const path of paths) {
    watchFile(path, { interval: INTERVAL_MS, persistent: false }, listener);
  }
  return {
    [Symbol.dispose]() {
      for (const path of paths) unwatchFile(path, listener);
    },
  };
}
