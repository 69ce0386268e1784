import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, writeSync } from "node:fs";

/** Makes a pipe with a name, and opens both ends. */
export function openPipe(path: string): { readEnd: number; writeEnd: number } {
  execFileSync("mkfifo", [path]);
  const readEnd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return { readEnd, writeEnd: openSync(path, constants.O_WRONLY) };
}

/** Writes to a pipe until it takes no more. */
export function fillPipe(path: string): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  try {
    for (const byte = Buffer.from("x"); ; ) writeSync(fd, byte);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
  } finally {
    closeSync(fd);
  }
}
