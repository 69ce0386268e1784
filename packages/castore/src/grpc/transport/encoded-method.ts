import {
  type DescMethod,
  type DescMethodClientStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { encodedIn, frameEncoded, type MessageFraming, parseMessage } from "./frames.ts";

/** The context of a call, as far as handlers use it. */
interface CallContext {
  readonly signal: AbortSignal;
}

/** Yields the response of a call in pieces, each of them messages as they stand in the stream. */
export type FramedCall<Request = never> = (
  request: Request,
  context: CallContext,
) => AsyncIterable<Uint8Array>;

/** Takes the messages of a request as they stand in the stream. */
export type EncodedRequestsCall<Response = unknown> = (
  requests: AsyncIterable<Uint8Array>,
  context: CallContext,
) => Promise<Response>;

/** What marks the methods of an implementation that answer with encoded messages, and those that take them. */
const framedCall = Symbol("framed call");
const encodedRequestsCall = Symbol("encoded requests call");

/**
 * Makes a method of an implementation whose response is messages that are encoded already, such as stored ones. Where
 * a call is answered straight on its stream, they are sent as they are; for Connect they are decoded.
 *
 * @param call yields the messages, as many at a time as there are: `undefined` is an empty one
 */
export function encodedStream<Method extends DescMethodServerStreaming>(
  method: Method,
  call: (
    request: MessageShape<Method["input"]>,
    context: CallContext,
  ) => AsyncIterable<Iterable<Uint8Array | undefined>>,
  framing?: MessageFraming,
): (
  request: MessageShape<Method["input"]>,
  context: CallContext,
) => AsyncGenerator<MessageShape<Method["output"]>> {
  const framed: FramedCall<MessageShape<Method["input"]>> = async function* (request, context) {
    for await (const messages of call(request, context)) yield* frameEncoded(messages, framing);
  };
  return Object.assign(
    (request: MessageShape<Method["input"]>, context: CallContext) =>
      decoded(method, framed(request, context)),
    { [framedCall]: framed },
  );
}

/** Like {@link encodedStream}, of a method whose response is one message. */
export function encodedUnary<Method extends DescMethodUnary>(
  method: Method,
  call: (request: MessageShape<Method["input"]>, context: CallContext) => Promise<Uint8Array>,
): (
  request: MessageShape<Method["input"]>,
  context: CallContext,
) => Promise<MessageShape<Method["output"]>> {
  const framed: FramedCall<MessageShape<Method["input"]>> = async function* (request, context) {
    yield* frameEncoded([await call(request, context)]);
  };
  return Object.assign(
    async (request: MessageShape<Method["input"]>, context: CallContext) =>
      parseMessage(method.output, await call(request, context)) as MessageShape<Method["output"]>,
    { [framedCall]: framed },
  );
}

/**
 * Makes a method of an implementation that takes the messages of its request encoded, as they are stored. A call that is answered
 * straight on its stream gets them as they were sent. Connect decodes them, so that they are encoded again.
 *
 * @param call is given messages that may share memory with others
 */
export function encodedRequests<Method extends DescMethodClientStreaming>(
  { input }: Method,
  call: EncodedRequestsCall<MessageInitShape<Method["output"]>>,
): (
  requests: AsyncIterable<MessageShape<Method["input"]>>,
  context: CallContext,
) => Promise<MessageInitShape<Method["output"]>> {
  const encoded = async function* (requests: AsyncIterable<MessageShape<Method["input"]>>) {
    for await (const request of requests) yield toBinary(input, request);
  };
  return Object.assign(
    (requests: AsyncIterable<MessageShape<Method["input"]>>, context: CallContext) =>
      call(encoded(requests), context),
    { [encodedRequestsCall]: call },
  );
}

/** How a method takes encoded messages; `undefined` for one that takes decoded ones. */
export function encodedRequestsCallOf(
  implementation: object | undefined,
): EncodedRequestsCall | undefined {
  const marked = implementation as { [encodedRequestsCall]?: EncodedRequestsCall } | undefined;
  return marked?.[encodedRequestsCall];
}

/** How a method answers with framed messages; `undefined` for one that answers with decoded ones. */
export function framedCallOf(implementation: object | undefined): FramedCall | undefined {
  return (implementation as { [framedCall]?: FramedCall } | undefined)?.[framedCall];
}

async function* decoded<Method extends DescMethod>(
  { output }: Method,
  pieces: AsyncIterable<Uint8Array>,
): AsyncGenerator<MessageShape<Method["output"]>> {
  for await (const piece of pieces) {
    for (const message of encodedIn(piece)) {
      yield parseMessage(output, message) as MessageShape<Method["output"]>;
    }
  }
}
