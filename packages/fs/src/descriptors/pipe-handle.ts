import { CastoreError } from "@tvix/castore";

/**
 * A stream handle of libuv over a descriptor, as Node's own modules use it. Failures are returned as negative errno values.
 */
export interface PipeHandle {
  /** Number of the descriptor; -1 if there is none. */
  readonly fd: number;
  /** Called with the bytes of a read; without bytes at the end, and after a failure. */
  onread: (bytes?: ArrayBuffer) => void;
  /** Takes over a descriptor, which closing the handle closes. */
  open(fd: number): number;
  connect(request: Request, path: string): number;
  readStart(): number;
  readStop(): number;
  /** Sends text, with the descriptor of a handle if there is one. */
  writeUtf8String(request: Request, text: string, descriptor?: PipeHandle): number;
  close(): void;
  unref(): void;
}

/** A call that is under way. */
interface Request {
  oncomplete?: (status: number) => void;
}

/** The classes behind the streams of Node. */
interface Bindings {
  readonly Pipe: new (kind: number) => PipeHandle;
  readonly PipeConnectWrap: new () => Request;
  readonly WriteWrap: new () => Request;
}

/** Kinds of pipes, as Node numbers them: the second one takes and sends descriptors. */
const KIND = { plain: 0, descriptors: 2 } as const;

let loaded: Bindings | undefined;

/**
 * Returns a new handle, over a descriptor if one is given.
 *
 * @throws CastoreError `unimplemented` if this version of Node keeps the handles of its streams to itself
 */
export function newPipe(kind: keyof typeof KIND, fd?: number): PipeHandle {
  const { Pipe } = bindings();
  const pipe = new Pipe(KIND[kind]);
  if (fd !== undefined) check("open a descriptor", pipe.open(fd));
  return pipe;
}

/** Connects a handle to a socket that listens. */
export async function connectPipe(pipe: PipeHandle, path: string): Promise<void> {
  const request = new (bindings().PipeConnectWrap)();
  await completed("connect to a socket", request, () => pipe.connect(request, path));
}

/** Sends one byte with the descriptor of a handle. */
export async function sendDescriptor(to: PipeHandle, descriptor: PipeHandle): Promise<void> {
  const request = new (bindings().WriteWrap)();
  await completed("send a descriptor", request, () =>
    to.writeUtf8String(request, "\0", descriptor),
  );
}

async function completed(action: string, request: Request, start: () => number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<number>();
  request.oncomplete = resolve;
  const status = start();
  check(action, status < 0 ? status : await promise);
}

function bindings(): Bindings {
  try {
    loaded ??= { ...internals("pipe_wrap"), ...internals("stream_wrap") } as unknown as Bindings;
    return loaded;
  } catch (error) {
    const reason = (error as Error).message;
    throw new CastoreError(
      "unimplemented",
      `Cannot receive file descriptors: expected the pipes of Node.js, found none in ${process.version}: ${reason}`,
      { cause: error },
    );
  }
}

/** Returns a room of Node that its public interface does not lead to: nothing there receives descriptors. */
function internals(name: string): object {
  return (process as unknown as { binding(name: string): object }).binding(name);
}

function check(action: string, status: number): void {
  if (status >= 0) return;
  throw new CastoreError("internal", `Cannot ${action}: errno ${-status}`);
}
