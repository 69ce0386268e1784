import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/** Returns the folder for caches of this user's `tvix-store`; `undefined` for a user without a home folder. */
export function cacheFolder(): string | undefined {
  return ownFolder(process.env.XDG_CACHE_HOME, ".cache");
}

/**
 * Returns the folder of the embedded stores: `$STATE_DIRECTORY` (systemd), `/var/lib/tvix-store` for root, the XDG state
 * folder otherwise. `undefined` for a user without a home folder.
 */
export function stateFolder(): string | undefined {
  const { STATE_DIRECTORY, XDG_STATE_HOME } = process.env;
  if (STATE_DIRECTORY) return STATE_DIRECTORY.split(":")[0]!; // systemd lists all, ours is the first
  if (process.getuid?.() === 0) return "/var/lib/tvix-store";
  return ownFolder(XDG_STATE_HOME, ".local/state");
}

/** Returns `tvix-store` below an XDG base folder; the XDG specification ignores relative ones. */
function ownFolder(base: string | undefined, belowHome: string): string | undefined {
  if (base && isAbsolute(base)) return join(base, "tvix-store");
  const home = homeFolder();
  return home === undefined ? undefined : join(home, belowHome, "tvix-store");
}

function homeFolder(): string | undefined {
  let home: string;
  try {
    home = homedir();
  } catch {
    return undefined; // neither HOME nor the user database names one
  }
  return isAbsolute(home) ? home : undefined;
}
