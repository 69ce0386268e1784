import { open, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { CastoreError, systemReason } from "@tvix/castore";

/**
 * Replaces a file in one step, durably; with the same owner and permissions, and for its owner only if it is new. The
 * new contents are written beside it, to a file that also keeps others from editing at the same time.
 *
 * @param change gets the contents, `undefined` if there is no file. If it throws, the file stays as it is
 * @throws CastoreError `aborted` while another process edits the file, `permission_denied` if the system refuses
 */
export async function replaceFile(
  path: string,
  change: (text: string | undefined) => Promise<string>,
): Promise<void> {
  try {
    const place = (await realpath(path).catch(ifAbsent)) ?? resolve(path);
    const draft = join(dirname(place), `.${basename(place)}.edit`);
    await using file = await open(draft, "wx", 0o600);
    try {
      // Looked at only now: before the draft was made, another may have made the file.
      const found = await stat(place).catch(ifAbsent);
      await file.writeFile(await change(found && (await readFile(place, "utf8"))));
      if (found !== undefined) {
        await file.chmod(found.mode & 0o777);
        await file.chown(found.uid, found.gid);
      }
      await file.sync();
      await rename(draft, place);
    } catch (error) {
      await rm(draft, { force: true });
      throw error;
    }
    await using folder = await open(dirname(place), "r");
    await folder.sync();
  } catch (error) {
    if (error instanceof CastoreError) throw error;
    const failure = error as NodeJS.ErrnoException;
    const action = `Cannot edit "${path}"`;
    if (failure.code === "EEXIST") {
      const message = `${action}: another command edits it; if none runs, remove "${failure.path}"`;
      throw new CastoreError("aborted", message, { cause: error });
    }
    const message = `${action}: ${systemReason(failure)}`;
    throw new CastoreError("permission_denied", message, { cause: error });
  }
}

function ifAbsent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}
