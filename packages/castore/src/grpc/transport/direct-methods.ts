import { create, type DescMethod, type DescService, type Message } from "@bufbuild/protobuf";
import { Code, type ServiceImpl } from "@connectrpc/connect";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import { freeMemory } from "../../bytes/free-memory.ts";
import { encodedRequestsCallOf, framedCallOf } from "./encoded-method.ts";
import { dataField, dataIn, dataParts, frameHeader, messageParts, parseMessage } from "./frames.ts";
import { RpcError } from "./rpc-error.ts";

/** A message that is encoded while it is sent. */
export interface EncodedMessage {
  /** Length of the encoding in bytes. */
  readonly length: number;
  /** The encoding in parts, to be iterated once. */
  readonly parts: AsyncIterable<Uint8Array>;
  /** Memory that nobody else uses, to be freed once it is sent: byte strings, each all that is in its buffer. Default: none. */
  readonly memory?: readonly Uint8Array[];
}

/** Encodes the response to a request; `undefined` leaves the call to the implementation of the service. */
type Encoder = (request: never, options: AbortOptions) => Promise<EncodedMessage | undefined>;

/** A service, and what answers its calls. */
export interface ServedService<Service extends DescService = DescService> {
  readonly service: Service;
  /** Uses nothing of the context of a call but its signal. */
  readonly implementation: ServiceImpl<Service>;
  /**
   * Tells, by the local name of a method, how many bytes a call of it holds at most beside its request: of a stream of
   * requests without them. Default: so few that they do not count.
   */
  readonly bytesHeld?: Readonly<Record<string, (request: never) => number>>;
  /**
   * Encoders of responses that may be long, by the local name of a method that has one request and one response.
   * Default: the response of the implementation is encoded in one step.
   */
  readonly encoders?: Readonly<Record<string, Encoder>>;
  /**
   * Local names of methods whose response is a stream of bytes that nobody else has: their memory is freed once they are sent.
   * Default: none.
   */
  readonly ownedData?: readonly string[];
  /**
   * Local names of methods whose implementation keeps nothing of its one request: the memory of that is freed once they have
   * answered. Default: none.
   */
  readonly lentRequests?: readonly string[];
}

/** Takes the messages of a response. Throws when the call has ended early. One call at a time. */
export interface ResponseSender {
  /**
   * Sends a framed message in parts, one after the other, which nobody may change from then on. Resolves when there is
   * room for more; `undefined` if there is already.
   */
  send(...parts: readonly Uint8Array[]): Promise<void> | undefined;
  /** Frees memory that nobody else uses, once everything is sent before: byte strings, each all that is in its buffer. */
  free(memory: readonly Uint8Array[]): void;
  /** Waits for room for what the call is going to hold. */
  reserve(bytes: number): Promise<void>;
}

/**
 * A method that a server can call with the messages of an HTTP/2 stream as they are. Connect, made for
 * comfort and every protocol, takes several times as long for a call.
 */
export interface DirectMethod {
  /** Set for a request that is a stream of bytes: what to read it with, see `MessageReader`. */
  readonly dataOf: ((message: Uint8Array) => Uint8Array) | undefined;
  /** Whether the request is a stream of messages, or of bytes. */
  readonly takesStream: boolean;
  /**
   * Answers a call.
   *
   * @param requests the messages of the request, or the pieces of its data
   * @param signal aborts when the call ends early
   * @throws RpcError for every refusal
   */
  answer(
    requests: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    sender: ResponseSender,
  ): Promise<void>;
}

/** What a method of an implementation looks like without its types. */
type Call = (
  request: Message | AsyncIterable<Message>,
  context: { signal: AbortSignal },
) => Message | Promise<Message> | AsyncIterable<Message>;

type BytesHeld = ((request: Message | undefined) => number) | undefined;

/** The methods of a service, by the path that they are called by. */
export function directMethods({
  service,
  implementation,
  bytesHeld = {},
  encoders = {},
  ownedData = [],
  lentRequests = [],
}: ServedService): ReadonlyMap<string, DirectMethod> {
  const calls = implementation as unknown as Readonly<Record<string, Call>>;
  return new Map(
    service.methods.map((method) => [
      `/${service.typeName}/${method.name}`,
      directMethod(method, calls[method.localName]!, {
        bytesHeld: bytesHeld[method.localName] as BytesHeld,
        encode: encoders[method.localName],
        isOwned: ownedData.includes(method.localName),
        isLent: lentRequests.includes(method.localName),
      }),
    ]),
  );
}

function directMethod(
  { methodKind, input, output }: DescMethod,
  call: Call,
  {
    bytesHeld,
    encode,
    isOwned,
    isLent,
  }: {
    bytesHeld: BytesHeld;
    encode: Encoder | undefined;
    isOwned: boolean;
    isLent: boolean;
  },
): DirectMethod {
  const takesStream = methodKind === "client_streaming" || methodKind === "bidi_streaming";
  const givesStream = methodKind === "server_streaming" || methodKind === "bidi_streaming";
  const takenData = takesStream ? dataField(input) : undefined;
  const givenData = givesStream ? dataField(output) : undefined;
  const framed = framedCallOf(call);
  const takesEncoded = encodedRequestsCallOf(call);
  const parse =
    takenData === undefined
      ? (bytes: Uint8Array): Message => parseMessage(input, bytes)
      : (bytes: Uint8Array): Message => create(input, { [takenData]: bytes });
  return {
    dataOf: takenData === undefined ? undefined : (message) => dataIn(input, message),
    takesStream,
    async answer(requests, signal, sender) {
      const bytes = takesStream ? undefined : await onlyMessage(requests);
      const message = bytes && parseMessage(input, bytes);
      if (bytesHeld !== undefined) await sender.reserve(bytesHeld(message));
      const encoded = await encode?.(message as never, { signal });
      if (encoded !== undefined) {
        await sender.send(frameHeader(encoded.length));
        for await (const part of encoded.parts) await sender.send(part);
        if (encoded.memory !== undefined) sender.free(encoded.memory);
        return;
      }
      const request = message ?? (takesEncoded ? requests : mapEach(requests, parse));
      if (framed !== undefined) {
        for await (const piece of framed(request as never, { signal })) await sender.send(piece);
        return;
      }
      const response = (takesEncoded ?? call)(request as never, { signal });
      if (!givesStream) {
        sender.send(...messageParts(output, create(output, (await response) as Message)));
        if (isLent && bytes !== undefined) freeMemory([bytes]);
        return;
      }
      for await (const message of response as AsyncIterable<Message>) {
        if (givenData === undefined) {
          const parts = messageParts(output, create(output, message));
          const hasRoom = sender.send(...parts);
          sender.free(parts.slice(-1)); // an encoding is a copy
          await hasRoom;
        } else {
          const data = (message as unknown as Record<string, Uint8Array>)[givenData]!;
          const hasRoom = sender.send(...dataParts(data));
          if (isOwned) sender.free([data]);
          await hasRoom;
        }
      }
    },
  };
}

/** Like a generator that yields what is made of each, at a fraction of the cost. */
function mapEach<T>(
  pieces: AsyncIterable<Uint8Array>,
  make: (piece: Uint8Array) => T,
): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = pieces[Symbol.asyncIterator]();
      return {
        async next() {
          const { done, value } = await iterator.next();
          return done ? { done, value: undefined } : { done: false, value: make(value) };
        },
        async return() {
          await iterator.return?.();
          return { done: true, value: undefined };
        },
      };
    },
  };
}

async function onlyMessage(messages: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  let only: Uint8Array | undefined;
  for await (const message of messages) {
    if (only !== undefined) throw new RpcError(Code.Unimplemented, "received extra input message");
    only = message;
  }
  if (only === undefined) throw new RpcError(Code.Unimplemented, "missing input message");
  return only;
}
