/** A socket that was opened by whoever started this process. */
export interface InheritedSocket {
  readonly fd: number;
  /** Its name: FileDescriptorName= in systemd.socket(5). `undefined` where none was given. */
  readonly name: string | undefined;
}

/** The file descriptor of the first socket: SD_LISTEN_FDS_START of sd_listen_fds(3). */
const FIRST_FD = 3;

/** The variables of sd_listen_fds(3). */
export interface InheritedEnvironment {
  readonly LISTEN_PID?: string | undefined;
  readonly LISTEN_FDS?: string | undefined;
  readonly LISTEN_FDNAMES?: string | undefined;
}

/** Returns the sockets that were passed to this very process, by sd_listen_fds(3). Taking one removes it from the result. */
export function inheritedSockets(env: InheritedEnvironment = process.env): InheritedSocket[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = env;
  const count = Number(LISTEN_FDS);
  if (Number(LISTEN_PID) !== process.pid || !Number.isSafeInteger(count) || count < 0) return [];
  const names = LISTEN_FDNAMES?.split(":");
  return Array.from({ length: count }, (_, at) => ({ fd: FIRST_FD + at, name: names?.[at] }));
}
