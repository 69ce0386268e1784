import { create, type DescService, type Message } from "@bufbuild/protobuf";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { dataFrameHeader, dataIn, frameMessage, isDataOnly, parseMessage } from "./frames.ts";

/** A service, and what answers its calls. */
export interface ServedService<Service extends DescService = DescService> {
  readonly service: Service;
  /** Uses nothing of the context of a call but its signal. */
  readonly implementation: ServiceImpl<Service>;
}

/**
 * A method that a server can call with the messages of an HTTP/2 stream as they are. Connect, made for
 * comfort and every protocol, takes several times as long for a call.
 */
export interface DirectMethod {
  /** Set for a request that is a stream of bytes: what to read it with, see `MessageReader`. */
  readonly dataOf: ((message: Uint8Array) => Uint8Array) | undefined;
  /**
   * Answers a call.
   *
   * @param requests the messages of the request, or the pieces of its data
   * @param signal aborts when the call ends early
   * @param send sends parts of a framed message one after the other, and resolves when there is room for
   *   the next
   * @throws ConnectError for every refusal
   */
  answer(
    requests: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    send: (...parts: readonly Uint8Array[]) => Promise<void> | undefined,
  ): Promise<void>;
}

/** What a method of an implementation looks like without its types. */
type Call = (
  request: Message | AsyncIterable<Message>,
  context: { signal: AbortSignal },
) => Message | Promise<Message> | AsyncIterable<Message>;

/** The methods of a service, by the path that they are called by. */
export function directMethods({
  service,
  implementation,
}: ServedService): ReadonlyMap<string, DirectMethod> {
  const calls = implementation as unknown as Readonly<Record<string, Call>>;
  return new Map(
    service.methods.map(({ name, localName, methodKind, input, output }) => {
      const call = calls[localName]!;
      const takesStream = methodKind === "client_streaming" || methodKind === "bidi_streaming";
      const givesStream = methodKind === "server_streaming" || methodKind === "bidi_streaming";
      const dataField = takesStream && isDataOnly(input) ? input.fields[0]!.localName : undefined;
      const givenDataField =
        givesStream && isDataOnly(output) ? output.fields[0]!.localName : undefined;
      const method: DirectMethod = {
        dataOf: dataField === undefined ? undefined : (message) => dataIn(input, message),
        async answer(requests, signal, send) {
          const request = takesStream
            ? mapEach(requests, (bytes) =>
                dataField === undefined
                  ? parseMessage(input, bytes)
                  : (create(input, { [dataField]: bytes }) as Message),
              )
            : parseMessage(input, await onlyMessage(requests));
          const response = call(request, { signal });
          if (!givesStream) {
            const message = (await response) as Message;
            await send(frameMessage(output, create(output, message)));
            return;
          }
          for await (const message of response as AsyncIterable<Message>) {
            if (givenDataField === undefined) {
              await send(frameMessage(output, create(output, message)));
            } else {
              const data = (message as unknown as Record<string, Uint8Array>)[givenDataField]!;
              await send(dataFrameHeader(data.length), data);
            }
          }
        },
      };
      return [`/${service.typeName}/${name}`, method];
    }),
  );
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
    if (only !== undefined)
      throw new ConnectError("received extra input message", Code.Unimplemented);
    only = message;
  }
  if (only === undefined) throw new ConnectError("missing input message", Code.Unimplemented);
  return only;
}
