import { once } from "node:events";
import { connect, type Socket } from "node:net";
import {
  type Client,
  Code,
  ConnectError,
  createClient,
  type ServiceImpl,
} from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { B3Digest, blake3Digest } from "@tvix/castore";
import type { ServedService } from "@tvix/castore/rpc";
import { type BlobChunk, BlobService } from "@tvix/proto/castore";
import { pino } from "pino";
import { listen } from "../src/server/listen.ts";
import { type Server, type ServerOptions, startServer } from "../src/server/server.ts";

/** A line of the log, parsed. */
type LogLine = Readonly<Record<string, unknown>>;

/** A server over blobs in a Map, with hooks to hold its calls at known places. */
export interface Fixture extends AsyncDisposable {
  readonly server: Server;
  /** The first address, `host:port` or a path. */
  readonly address: string;
  /** The first address as a URL. */
  readonly url: string;
  readonly lines: readonly LogLine[];
  /** The errors of the handlers of Put. */
  readonly putErrors: readonly unknown[];
  /** Runs between the first and the second message of every Read. */
  onRead: () => Promise<void>;
  /** Runs after each message that a Put has received. */
  onPut: (data: Uint8Array) => void | Promise<void>;
}

/** Starts a server with a small BlobService. Default address: 127.0.0.1. */
export async function startFixture({
  addresses = ["127.0.0.1:0"],
  ...options
}: Partial<ServerOptions> & { addresses?: readonly string[] } = {}): Promise<Fixture> {
  const lines: LogLine[] = [];
  const blobs = new Map<string, Uint8Array>();
  const putErrors: unknown[] = [];
  const server = await startServer({
    listen: (events) => listen(addresses, events),
    logger: pino({ level: "trace", base: null }, { write: (line) => lines.push(JSON.parse(line)) }),
    services: [
      served({
        stat({ digest }) {
          if (digest.length !== 32) throw new ConnectError("bad digest", Code.InvalidArgument);
          if (!blobs.has(B3Digest.fromBytes(digest).hex)) {
            throw new ConnectError("no such blob", Code.NotFound);
          }
          return {};
        },
        async *read({ digest }) {
          const blob = blobs.get(B3Digest.fromBytes(digest).hex);
          if (blob === undefined) throw new ConnectError("no such blob", Code.NotFound);
          const middle = blob.length >> 1;
          yield { data: blob.subarray(0, middle) };
          await fixture.onRead();
          yield { data: blob.subarray(middle) };
        },
        async put(chunks: AsyncIterable<BlobChunk>) {
          const parts: Uint8Array[] = [];
          try {
            for await (const { data } of chunks) {
              parts.push(data);
              await fixture.onPut(data);
            }
          } catch (error) {
            putErrors.push(error);
            throw error;
          }
          const blob = Buffer.concat(parts);
          const digest = blake3Digest(blob);
          blobs.set(digest.hex, blob);
          return { digest: digest.bytes };
        },
      }),
    ],
    ...options,
  });
  const address = server.addresses[0]!;
  const fixture: Fixture = {
    server,
    address,
    url: `http://${address}`,
    lines,
    putErrors,
    onRead: async () => undefined,
    onPut: () => undefined,
    [Symbol.asyncDispose]: () => server.terminate(),
  };
  return fixture;
}

function served(implementation: ServiceImpl<typeof BlobService>): ServedService {
  return { service: BlobService, implementation };
}

/** A gRPC client of the fixture. */
export function grpcClient({ url }: Fixture): Client<typeof BlobService> {
  return createClient(BlobService, createGrpcTransport({ baseUrl: url }));
}

/** Sends parts as one blob; the digest that the server answers. */
export async function putBlob(
  client: Client<typeof BlobService>,
  ...parts: readonly Uint8Array[]
): Promise<Uint8Array> {
  const { digest } = await client.put(
    (async function* () {
      for (const data of parts) yield { data };
    })(),
  );
  return digest;
}

/** Reads a blob. */
export async function readBlob(
  client: Client<typeof BlobService>,
  digest: Uint8Array,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const { data } of client.read({ digest })) parts.push(data);
  return Buffer.concat(parts);
}

/** Opens a plain connection to the fixture. */
export async function openSocket({ address }: Fixture): Promise<Socket> {
  const { hostname, port } = new URL(`http://${address}`);
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ""), port: Number(port) });
  await once(socket, "connect");
  return socket;
}

/** Everything that arrives until the other side closes, which counts if it breaks off, too. */
export async function readToEnd(socket: Socket): Promise<string> {
  const parts: Buffer[] = [];
  socket.on("data", (part) => parts.push(part));
  socket.on("error", () => undefined);
  if (!socket.closed) await new Promise((resolve) => socket.once("close", resolve));
  return Buffer.concat(parts).toString("latin1");
}

/** A promise and the function that resolves it. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { opened: promise, open: resolve };
}
