import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  type Message,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { frameMessage, parseMessage } from "./frames.ts";

/**
 * A method that a server can call with the messages of an HTTP/2 stream as they are. Connect, made for
 * comfort and every protocol, takes several times as long for a call.
 */
export interface DirectMethod {
  readonly method: DescMethod;
  /**
   * Answers a call.
   *
   * @param requests the messages of the request
   * @param signal aborts when the call ends early
   * @returns the messages of the response, each framed, in parts that are sent one after the other
   * @throws ConnectError for every refusal
   */
  answer(
    requests: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): AsyncIterable<readonly Uint8Array[]>;
}

/** A service, and what answers its calls. */
export interface ServedService<Service extends DescService = DescService> {
  readonly service: Service;
  /** Uses nothing of the context of a call but its signal. */
  readonly implementation: ServiceImpl<Service>;
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
    service.methods.map((method) => [
      `/${service.typeName}/${method.name}`,
      { method, answer: answerWith(method, calls[method.localName]!) },
    ]),
  );
}

function answerWith(method: DescMethod, call: Call): DirectMethod["answer"] {
  const { input, output, methodKind } = method;
  const takesStream = methodKind === "client_streaming" || methodKind === "bidi_streaming";
  const givesStream = methodKind === "server_streaming" || methodKind === "bidi_streaming";
  return async function* (requests, signal) {
    const request = takesStream
      ? parseEach(input, requests)
      : parseMessage(input, await onlyMessage(requests));
    const response = call(request, { signal });
    if (givesStream) {
      const messages = response as AsyncIterable<Message>;
      for await (const message of messages) yield frameMessage(output, create(output, message));
    } else {
      yield frameMessage(output, create(output, await (response as Message | Promise<Message>)));
    }
  };
}

async function* parseEach(
  schema: DescMessage,
  messages: AsyncIterable<Uint8Array>,
): AsyncGenerator<Message> {
  for await (const message of messages) yield parseMessage(schema, message);
}

async function onlyMessage(messages: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  let only: Uint8Array | undefined;
  for await (const message of messages) {
    if (only !== undefined) throw new ConnectError("expected one message", Code.Unimplemented);
    only = message;
  }
  if (only === undefined) throw new ConnectError("expected a message", Code.Unimplemented);
  return only;
}
