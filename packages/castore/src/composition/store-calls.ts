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
 * Records the calls of one store: its errors name the store, and each call is a span, if spans are recorded.
 */
export class StoreCalls {
  readonly #contract: string;
  readonly #store: string;

  /**
   * @param contract name of the contract, such as `BlobService`
   * @param store the name of the store, without secrets
   */
  constructor(contract: string, store: string) {
    this.#contract = contract;
    this.#store = store;
  }

  /**
   * Starts a call. It is over once one of its steps fails, or it is ended.
   *
   * @param about returns the span attributes. Called only if spans are recorded
   * @param options options of the call: an abort of its signal is not a failure of the store
   */
  begin(method: string, about: () => Attributes, options?: AbortOptions): StoreCall {
    const span = tracer.startSpan(`${this.#contract}.${method}`);
    if (!isSpanContextValid(span.spanContext())) return new StoreCall(this.#store, options);
    span.setAttributes({ "tvix.store.name": this.#store, ...about() });
    return new StoreCall(this.#store, options, span);
  }

  /** Runs a call that ends when its promise is settled. */
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
   * Runs a call whose result is a stream. It starts with the first read, and ends when the stream ends, fails or is
   * closed early.
   *
   * @param measure the span attribute for the length, and the length of a piece
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

  /** Runs a step of the call without handling its errors. */
  enter<T>(step: () => T): T {
    return this.#context === undefined ? step() : context.with(this.#context, step);
  }

  /** Runs a step of the call. If it rejects, the call has failed. */
  async run<T>(step: () => Promise<T>): Promise<T> {
    try {
      return await this.enter(step);
    } catch (error) {
      throw this.fail(error);
    }
  }

  /** Like {@link run}, for a synchronous step. */
  runSync<T>(step: () => T): T {
    try {
      return this.enter(step);
    } catch (error) {
      throw this.fail(error);
    }
  }

  /** Passes on a stream, and ends the call with it. */
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

  /** Ends the call with an error, and returns the error with the name of the store. */
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

/** The span attribute for the length of a stream. */
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

  /** @param begin is called at the first read, as is `open` */
  constructor(begin: () => StoreCall, open: () => AsyncIterable<T>, measure: Measure<T>) {
    this.#begin = begin;
    this.#open = open;
    this.#measure = measure;
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    return this;
  }

  /** Makes one promise of its own: a listing has a hundred thousand items. */
  next(): Promise<IteratorResult<T, undefined>> {
    let next: Promise<IteratorResult<T, undefined>>;
    try {
      const { call, iterator } = this.#started();
      next = call.enter(() => iterator.next());
    } catch (error) {
      return Promise.reject(this.#begun?.call.fail(error) ?? error);
    }
    return next.then(this.#count, this.#fail);
  }

  readonly #count = (result: IteratorResult<T, undefined>): IteratorResult<T, undefined> => {
    if (result.done) this.#end(this.#begun!.call);
    else this.#length += this.#measure.of(result.value);
    return result;
  };

  readonly #fail = (error: unknown): never => {
    throw this.#begun!.call.fail(error);
  };

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
