import { closeSync, fstatSync } from "node:fs";
import { CastoreError } from "@tvix/castore";
import { DescriptorReceiver } from "./descriptors/descriptor-receiver.ts";
import type { MountedDevice } from "./mount-program.ts";
import { type Ended, startProgram } from "./run-program.ts";

/** The setuid programs of FUSE 3 and FUSE 2, which speak the same protocol. */
const PROGRAMS = ["fusermount3", "fusermount"] as const;

/** Number of the FUSE device, which is the same on all machines: major 10, minor 229. */
const FUSE_DEVICE = (10 << 8) | 229;

const INSTALL =
  'expected the program "fusermount3", which mounts for users that are not root, found none; install the package "fuse3"';

/**
 * Mounts a new FUSE device on a folder by `fusermount3`, which sends the open device over a socket. It goes on until that
 * socket is closed, and unmounts then: also when this process was killed.
 *
 * @throws CastoreError `unimplemented` where it is not installed, `permission_denied` with what it says
 */
export async function mountAsUser(
  folder: string,
  { allowOther }: { allowOther: boolean },
): Promise<MountedDevice> {
  const options = [
    "ro",
    "nosuid",
    "nodev",
    "default_permissions",
    "auto_unmount",
    "fsname=tvix-store",
    "subtype=tvix-store",
    ...(allowOther ? ["allow_other"] : []),
  ];
  const args = ["-o", options.join(), "--", folder];
  for (const program of PROGRAMS) {
    const fd = await deviceFrom(program, args, folder);
    if (fd !== undefined) return { fd: fd.device, ...endsOf(program, folder, fd) };
  }
  throw new CastoreError("unimplemented", `Cannot mount on ${JSON.stringify(folder)}: ${INSTALL}`);
}

interface Sent {
  readonly device: number;
  /** The socket that keeps it mounted. */
  readonly receiver: DescriptorReceiver;
}

/** Runs a program and takes the device that it sends; returns `undefined` if there is no such program. */
async function deviceFrom(
  program: string,
  args: readonly string[],
  folder: string,
): Promise<Sent | undefined> {
  const { receiver, peer } = await DescriptorReceiver.pair();
  const env = { _FUSE_COMMFD: "0" }; // as its input, since it waits for the end only on a socket that blocks
  const { child, ended } = startProgram(program, args, { stdin: peer.fd, env });
  peer.close();
  const failed = ended.catch((error: NodeJS.ErrnoException) => error);
  const received = await receiver.receive();
  for (const fd of received?.opened.keys() ?? []) {
    if (fstatSync(fd).rdev !== FUSE_DEVICE) continue;
    child.unref(); // goes on in the background
    child.stderr!.destroy();
    return { device: fd, receiver };
  }
  receiver.close();
  const outcome = await failed;
  if (outcome instanceof Error) {
    if (outcome.code === "ENOENT") return undefined;
    throw refusal("mount on", folder, outcome.message);
  }
  throw refusal("mount on", folder, said(program, outcome));
}

function endsOf(program: string, folder: string, { device, receiver }: Sent) {
  return {
    async unmount(): Promise<boolean> {
      const plain = await startProgram(program, ["-u", "--", folder]).ended;
      if (plain.status === 0 || /not found in|not mounted/.test(plain.stderr)) return true;
      const lazy = await startProgram(program, ["-u", "-z", "--", folder]).ended;
      if (lazy.status === 0) return false;
      throw refusal("unmount", folder, said(program, lazy));
    },
    close(): void {
      closeSync(device);
      receiver.close();
    },
  };
}

function refusal(action: string, folder: string, reason: string): CastoreError {
  return new CastoreError(
    "permission_denied",
    `Cannot ${action} ${JSON.stringify(folder)}: ${reason}`,
  );
}

function said(program: string, { status, stderr }: Ended): string {
  return stderr.trim() || `${program} exited with ${status}`;
}
