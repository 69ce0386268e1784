import type { Socket } from "node:net";

/** How a client reaches a listener. */
export type Transport = "tcp" | "unix";

/** A socket that accepts connections. */
export interface Listener {
  /**
   * The address it is bound to, with the actual port, in the syntax of `--listen-address`. The system tells no path of an
   * inherited unix socket: that is `sd-listen:name`.
   */
  readonly address: string;

  /** Whether clients of other machines can connect. */
  readonly isOpen: boolean;

  /** Resolves once there can be no further connection although it was not stopped. Default: never. */
  readonly exhausted?: Promise<void>;

  /** Stops accepting connections at once. Resolves when the file of a unix socket is removed. */
  stop(): Promise<void>;

  /** Resolves when it is stopped and the last accepted connection has ended. */
  readonly ended: Promise<void>;
}

/** Callbacks of a listener. */
export interface ListenerEvents {
  /** Takes a new connection. Its socket allows half-open connections. */
  onConnection: (socket: Socket, transport: Transport) => void;
  /** Whether connections go to another process: nothing is read of them here. Default: false. */
  handsOver?: boolean;
  /** Takes the error of a connection that could not be accepted, such as EMFILE. The listener goes on. */
  onError: (error: Error) => void;
}
