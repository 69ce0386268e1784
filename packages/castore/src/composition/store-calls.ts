import {
  type Attributes,
  type Context,
  context,
  isSpanContextValid,
  type Span,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError, nameStore } from "../model/errors.ts";

const tracer = trace.getTracer("@tvix/castore");

/**
 * Records the calls of one store: the errors that come out of it name it, and each call is a span, where
 * spans are recorded.
 */
export class StoreCalls {
  readonly #contract: string;
  readonly #store: string;

  /**
   * @param contract what is called, such as `BlobService`
   * @param store the name of the store, in which there is nothing secret
   */
  constructor(contract: string, store: string) {
    this.#contract = contract;
    this.#store = store;
  }

  /**
   * Begins a call. It is over when a step of it fails, or is ended.
   *
   * @param about what is called for. Asked for only if somebody takes spans
   * @param options those of the call: when its signal is aborted, the reason is no failure of the store
   */
  begin(method: string, about: () => Attributes, options?: AbortOptions): StoreCall {
    const span = tracer.startSpan(`${this.#contract}.${method}`);
    if (!isSpanContextValid(span.spanContext())) return new StoreCall(this.#store, options);
    span.setAttributes({ "tvix.store.name": this.#store, ...about() });
    return new StoreCall(this.#store, options, span);
  }

  /** Runs a call that is over when its promise is. */
  async run<T>(
    method: string,
    about: () => Attributes,
    options: AbortOptions | undefined,
    call: () => Promise<T>,
  ): Promise<T> {
    const current = this.begin(method, about, options);
    try {
      const result = await current.enter(call);
      current.end();
      return result;
    } catch (error) {
      throw current.fail(error);
    }
  }

  /**
   * Runs a call whose result is a stream. It begins when the stream is first asked for something, and is over when the
   * stream is read to its end, left early, or fails.
   *
   * @param measure what the stream is measured by, and how much of that a piece of it is
   */
  stream<T>(
    method: string,
    about: () => Attributes,
    options: AbortOptions | undefined,
    call: () => AsyncIterable<T>,
    measure: Measure<T>,
  ): AsyncIterable<T> {
    const caller = context.active();
    const begin = () => context.with(caller, () => this.begin(method, about, options));
    return new CountedStream(begin, call, measure);
  }
}

/** One call of a store. */
export class StoreCall {
  readonly #store: string;
  readonly #signal: AbortSignal | undefined;
  readonly #span: Span | undefined;
  readonly #context: Context | undefined;
  #ended = false;

  constructor(store: string, options?: AbortOptions, span?: Span) {
    this.#store = store;
    this.#signal = options?.signal;
    this.#span = span;
    this.#context = span && trace.setSpan(context.active(), span);
  }

  /** Does a step of the call, what it throws aside. */
  enter<T>(step: () => T): T {
    return this.#context === undefined ? step() : context.with(this.#context, step);
  }

  /** Does a step of the call. If it rejects, the call has failed. */
  async run<T>(step: () => Promise<T>): Promise<T> {
    try {
      return await this.enter(step);
    } catch (error) {
      throw this.fail(error);
    }
  }

  /** Like {@link run}, for a step that is over when it returns. */
  runSync<T>(step: () => T): T {
    try {
      return this.enter(step);
    } catch (error) {
      throw this.fail(error);
    }
  }

  /** Hands on a stream, with which the call is over. */
  follow<T>(stream: AsyncIterable<T>, measure: Measure<T>): AsyncIterable<T> {
    return new CountedStream(
      () => this,
      () => stream,
      measure,
    );
  }

  /** Ends the call, unless it is over. */
  end(about?: Attributes): void {
    if (this.#ended) return;
    this.#ended = true;
    if (about !== undefined) this.#span?.setAttributes(about);
    this.#span?.end();
  }

  /** Ends the call by what was thrown, and gives it back with the name of the store. */
  fail(error: unknown): unknown {
    if (this.#signal?.aborted && error === this.#signal.reason) {
      this.end({ "tvix.cancelled": true });
      return error;
    }
    if (error instanceof CastoreError) nameStore(error, this.#store);
    if (this.#span !== undefined && !this.#ended) recordFailure(this.#span, error);
    this.end();
    return error;
  }
}

function recordFailure(span: Span, error: unknown): void {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  span.recordException(error instanceof Error ? error : message);
  span.setAttribute("error.type", error instanceof CastoreError ? error.code : name);
  span.setStatus({ code: SpanStatusCode.ERROR, message });
}

/** What the span of a stream says of its length. */
export interface Measure<T> {
  readonly attribute: string;
  of(piece: T): number;
}

class CountedStream<T> implements AsyncIterable<T>, AsyncIterator<T> {
  readonly #begin: () => StoreCall;
  readonly #open: () => AsyncIterable<T>;
  readonly #measure: Measure<T>;
  #begun: { readonly call: StoreCall; readonly iterator: AsyncIterator<T> } | undefined;
  #length = 0;

  /** @param begin and `open` are called when the stream is first asked for something */
  constructor(begin: () => StoreCall, open: () => AsyncIterable<T>, measure: Measure<T>) {
    this.#begin = begin;
    this.#open = open;
    this.#measure = measure;
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    return this;
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    const { call, iterator } = this.#started();
    const result = await call.run(() => iterator.next());
    if (result.done) this.#end(call);
    else this.#length += this.#measure.of(result.value);
    return result;
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    const { call, iterator } = this.#started();
    await call.run(async () => await iterator.return?.());
    this.#end(call);
    return { done: true, value: undefined };
  }

  #started(): { readonly call: StoreCall; readonly iterator: AsyncIterator<T> } {
    if (this.#begun === undefined) {
      const call = this.#begin();
      const iterator = call.runSync(() => this.#open()[Symbol.asyncIterator]());
      this.#begun = { call, iterator };
    }
    return this.#begun;
  }

  #end(call: StoreCall): void {
    call.end({ [this.#measure.attribute]: this.#length });
  }
}
