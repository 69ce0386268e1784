import { spawnSync } from "node:child_process";
import { MAIN } from "./harness.ts";

/** A user without any rights, whom the user database does not know. */
export const OTHER_UID = 54_321;

/** Whether this process can run the command as that user, which takes root, and sources that everybody may read. */
export const canBeOther: boolean = process.getuid?.() === 0 && canRead();

/** What the title of a test ends with that is skipped where {@link canBeOther} is false. */
export const missingOther: string = canBeOther
  ? ""
  : " (missing: root, and sources that everybody may read)";

function canRead(): boolean {
  const script = `require("node:fs").accessSync(${JSON.stringify(MAIN)})`;
  return spawnSync(process.execPath, ["-e", script], { uid: OTHER_UID }).status === 0;
}
