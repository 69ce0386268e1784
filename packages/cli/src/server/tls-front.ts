import type { Socket } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import { CastoreError } from "@tvix/castore";
import { readInputFile } from "../read-input-file.ts";

/** Paths of files in PEM, for {@link TlsFront}. */
export interface TlsFiles {
  /** The certificate, followed by those between it and the root. */
  cert: string;
  /** Its private key. */
  key: string;
  /** Certificates of which one has to have signed that of each client. Default: clients need none. */
  clientCa?: string | undefined;
}

/** Options of {@link TlsFront.open}. */
export interface TlsFrontOptions {
  files: TlsFiles;
  /** Time limit for a handshake, in milliseconds. */
  handshakeTimeoutMs: number;
  /** Takes a connection after its handshake. It allows half-open connections. */
  onConnection: (socket: TLSSocket) => void;
  /** Takes the error of a handshake, such as that of a client without a certificate. */
  onHandshakeError: (error: Error, socket: Socket) => void;
}

/** Makes the handshakes of connections that come from a listener: TLS 1.2 or 1.3, with HTTP/2 or HTTP/1.1 in it. */
export class TlsFront {
  readonly #files: TlsFiles;
  readonly #server: Server;
  /** The connections whose handshake is not complete, by their two ends. */
  readonly #shaking = new Map<string, Socket>();

  private constructor(options: TlsFrontOptions, contents: TlsContents) {
    this.#files = options.files;
    this.#server = createServer({
      ...contents,
      ALPNProtocols: ["h2", "http/1.1"],
      allowHalfOpen: true,
      handshakeTimeout: options.handshakeTimeoutMs,
      requestCert: options.files.clientCa !== undefined,
      rejectUnauthorized: true,
    });
    this.#server.on("secureConnection", (socket) => {
      this.#shaking.delete(endsOf(socket));
      options.onConnection(socket);
    });
    this.#server.on("tlsClientError", options.onHandshakeError);
  }

  /** @throws CastoreError `invalid_argument` for files that cannot be read or used */
  static async open(options: TlsFrontOptions): Promise<TlsFront> {
    const contents = await readTlsFiles(options.files);
    return useContents(options.files, () => new TlsFront(options, contents));
  }

  /** Takes a connection from a listener. */
  accept(socket: Socket): void {
    const ends = endsOf(socket);
    this.#shaking.set(ends, socket);
    socket.once("close", () => this.#shaking.delete(ends));
    this.#server.emit("connection", socket);
  }

  /**
   * Reads the files again, for connections to come.
   *
   * @throws CastoreError `invalid_argument` for files that cannot be read or used; the old ones stay in use
   */
  async reload(): Promise<void> {
    const contents = await readTlsFiles(this.#files);
    useContents(this.#files, () => this.#server.setSecureContext(contents));
  }

  /** Ends the connections whose handshake is not complete. */
  close(): void {
    for (const socket of this.#shaking.values()) socket.destroy();
  }
}

/** Returns the same for a connection and for the TLS in it. */
function endsOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

interface TlsContents {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca?: Buffer;
}

async function readTlsFiles({ cert, key, clientCa }: TlsFiles): Promise<TlsContents> {
  return {
    cert: await readInputFile("TLS certificate", cert),
    key: await readInputFile("TLS key", key),
    ...(clientCa !== undefined && { ca: await readInputFile("CA of TLS clients", clientCa) }),
  };
}

function useContents<T>({ cert, key, clientCa }: TlsFiles, use: () => T): T {
  try {
    return use();
  } catch (error) {
    const files = [cert, key, ...(clientCa === undefined ? [] : [clientCa])];
    const shown = files.map((path) => `"${path}"`).join(", ");
    // OpenSSL's message names the fault, such as "key values mismatch", and no part of a key.
    throw new CastoreError(
      "invalid_argument",
      `Cannot use TLS files ${shown}: expected a certificate and its key in PEM, found ${(error as Error).message}`,
      { cause: error },
    );
  }
}
