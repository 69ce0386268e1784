/** What the object stores of the clouds have in common. */
import { PassThrough } from "node:stream";
import pRetry from "p-retry";
import { unlessAborted } from "../abort.ts";
import { CastoreError, type ErrorCode } from "../errors.ts";
import type { AbortOptions } from "../options.ts";
import type { ObjectUpload } from "./object-store.ts";
import { uploadEnded } from "./upload-ended.ts";

/** How many bytes are sent or got in one part, and how many parts of an upload are sent at the same time. */
export const PART_BYTES: number = 8 * 1024 * 1024;
export const PARTS_IN_FLIGHT = 2;

/** How often a request is made at most. */
export const ATTEMPTS = 4;

/** How long a connection may take, in milliseconds. */
export const CONNECT_TIMEOUT_MS = 10_000;

const CODES: Readonly<Record<number, ErrorCode>> = {
  400: "invalid_argument",
  401: "permission_denied",
  403: "permission_denied",
  404: "not_found",
  409: "aborted",
  413: "resource_exhausted",
  507: "resource_exhausted",
};

/** An answer that broke off or did not come: to ask again may help, and no SDK does so by itself. */
class BrokenAnswer extends Error {}

/**
 * Runs a request, and turns what it throws into a CastoreError by the HTTP status of the answer:
 * `unavailable` where there was none, or one that may be another the next time.
 *
 * @param action what is attempted and where, for the message
 * @param statusOf the HTTP status that an error of the SDK carries
 * @throws CastoreError; `signal.reason` when cancelled, also where the SDK goes on
 */
export async function request<T>(
  run: () => Promise<T>,
  action: string,
  statusOf: (error: unknown) => number | undefined,
  options?: AbortOptions,
): Promise<T> {
  options?.signal?.throwIfAborted();
  try {
    return await unlessAborted(run(), options?.signal);
  } catch (error) {
    options?.signal?.throwIfAborted();
    if (error instanceof CastoreError) throw error;
    const code = CODES[statusOf(error) ?? 0] ?? "unavailable";
    const message = (error as Error).message.replace(/\?[^\s"']*=[^\s"']*/g, "?..."); // signatures
    throw new CastoreError(code, `${action}: ${message}`, { cause: error });
  }
}

/**
 * Runs a request that has to be done in time.
 *
 * @param run is given a signal that ends it
 * @throws BrokenAnswer, see {@link retryBroken}; `signal.reason` when cancelled
 */
export async function withTimeout<T>(
  timeoutMs: number,
  run: (signal: AbortSignal) => Promise<T>,
  options?: AbortOptions,
): Promise<T> {
  const late = new AbortController();
  const onLate = () => late.abort(new BrokenAnswer(`no answer within ${timeoutMs} ms`));
  const timer = setTimeout(onLate, timeoutMs);
  const signal = AbortSignal.any([late.signal, ...(options?.signal ? [options.signal] : [])]);
  try {
    return await unlessAborted(run(signal), signal);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Whether something was stored, which it is not if there was one already.
 *
 * @param present the HTTP statuses that say so
 */
export async function unlessPresent(
  store: () => Promise<unknown>,
  statusOf: (error: unknown) => number | undefined,
  present: readonly number[],
): Promise<boolean> {
  try {
    await store();
    return true;
  } catch (error) {
    if (present.includes(statusOf(error) ?? 0)) return false;
    throw error;
  }
}

/** Tries again, with growing and random pauses, while a test says that it may help. */
async function retry<T>(
  run: () => Promise<T>,
  shouldRetry: (error: unknown) => boolean,
  options?: AbortOptions,
): Promise<T> {
  return await pRetry(run, {
    retries: ATTEMPTS - 1,
    minTimeout: 100,
    randomize: true,
    shouldRetry: ({ error }) => shouldRetry(error),
    ...(options?.signal && { signal: options.signal }),
  });
}

/** Tries again what is unavailable, where no SDK does so. */
export async function retryUnavailable<T>(
  run: () => Promise<T>,
  options?: AbortOptions,
): Promise<T> {
  const isUnavailable = (error: unknown) =>
    error instanceof CastoreError && error.code === "unavailable";
  return await retry(run, isUnavailable, options);
}

/** Tries again what broke off or was late, where an SDK has tried everything else again. */
export async function retryBroken<T>(run: () => Promise<T>, options?: AbortOptions): Promise<T> {
  return await retry(run, (error) => error instanceof BrokenAnswer, options);
}

/** Reads an answer. Whatever goes wrong then means that it broke off. */
export async function readAnswer<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    throw new BrokenAnswer((error as Error).message, { cause: error });
  }
}

/** Bytes from the middle of an object. */
export interface ObjectPart {
  readonly data: Uint8Array;
  /** Which of the objects that had this key one after the other it is from. */
  readonly version?: string | undefined;
}

/**
 * The contents of an object, asked for part by part, each of which is tried again by itself. An answer is
 * read at once, so that a slow reader keeps no connection.
 *
 * @param name address of the object, for messages
 * @param range.start first byte
 * @param range.end byte after the last, which may be behind the end
 * @param get gets up to {@link PART_BYTES}, fewer at the end of the object: `undefined` if there is
 *   no object, or not of this version any more
 * @returns `undefined` if there is no object
 */
export async function readParts(
  name: string,
  { start, end }: { readonly start: number; readonly end: number },
  get: (start: number, end: number, version?: string) => Promise<ObjectPart | undefined>,
): Promise<AsyncIterable<Uint8Array> | undefined> {
  const endOfPart = (at: number) => Math.min(end, at + PART_BYTES);
  const first = await get(start, endOfPart(start));
  if (first === undefined) return undefined;
  return (async function* () {
    let part: ObjectPart = first;
    for (let at = start; ; ) {
      if (part.data.length > 0) yield part.data;
      at += part.data.length;
      if (part.data.length < PART_BYTES || at === end) return;
      const next = await get(at, endOfPart(at), first.version);
      if (next === undefined) {
        throw new CastoreError("aborted", `Cannot go on reading "${name}": it was replaced`);
      }
      part = next;
    }
  })();
}

/** A stream whose errors are by the contract. */
export async function* guarded(
  stream: AsyncIterable<Uint8Array>,
  guard: <T>(run: () => Promise<T>) => Promise<T>,
): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await guard(() => iterator.next());
      if (done) return;
      yield value;
    }
  } finally {
    // Not awaited: some streams never tell that they were destroyed.
    iterator.return?.()?.catch(() => undefined);
  }
}

/** The upload of an SDK that reads a stream. */
export interface StreamUpload {
  /**
   * Resolves when all of it is stored: whether it was, which it is not if there was one already. Rejects
   * once what was stored of it has been removed.
   */
  readonly done: Promise<boolean>;
  /** Ends it as soon as can be. */
  abort(): void;
}

/** Options of {@link uploadThrough}. */
export interface UploadThroughOptions extends AbortOptions {
  /** How long it may take until there is room for more, in milliseconds. Default: the SDK finds out. */
  timeoutMs?: number;
}

/** Makes an upload of one that reads a stream, which begins when there is something to send. */
export function uploadThrough(
  key: string,
  start: (body: PassThrough) => StreamUpload,
  { signal, timeoutMs }: UploadThroughOptions = {},
): ObjectUpload {
  const body = new PassThrough({ highWaterMark: PART_BYTES });
  body.on("error", () => undefined); // told to whoever writes, or closes
  let upload: StreamUpload | undefined;
  let closed: Promise<boolean> | undefined;
  let failure: { readonly error: unknown } | undefined;
  const { promise: failed, reject } = Promise.withResolvers<never>();
  failed.catch(() => undefined);
  const fail = (error: unknown) => {
    failure ??= { error };
    reject(failure.error);
    body.destroy(failure.error as Error);
    upload?.abort();
  };
  const throwIfFailed = () => {
    if (failure) throw failure.error;
  };
  const onAbort = () => fail(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  const begin = () => {
    upload ??= start(body);
    upload.done.catch(fail);
    return upload;
  };
  /** Waits for something that fails when the upload does, or when it takes too long. */
  const inTime = async <T>(promise: Promise<T>): Promise<T> => {
    const late = () => {
      const text = `Cannot store "${key}": nothing was taken within ${timeoutMs} ms`;
      fail(new CastoreError("unavailable", text));
    };
    const timer = timeoutMs === undefined ? undefined : setTimeout(late, timeoutMs);
    try {
      return await Promise.race([promise, failed]);
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    async write(data) {
      signal?.throwIfAborted();
      throwIfFailed();
      if (closed !== undefined) throw uploadEnded(key);
      begin();
      const copy = Buffer.from(data); // the SDK keeps it for longer than it is lent
      await inTime(new Promise<void>((resolve) => void body.write(copy, () => resolve())));
      throwIfFailed();
    },
    close() {
      closed ??= (async () => {
        signal?.throwIfAborted();
        throwIfFailed();
        const { done } = begin();
        body.end();
        return await inTime(done);
      })();
      return closed;
    },
    async [Symbol.asyncDispose]() {
      if (closed === undefined) fail(uploadEnded(key));
      await closed?.catch(() => undefined); // whoever called close() was told
      await upload?.done.catch(() => undefined);
      signal?.removeEventListener("abort", onAbort);
    },
  };
}

/** Imports an SDK, which is only there for who uses it. */
export async function loadSdk<T>(name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw error;
    const text = `Cannot open this object store: package "${name}" is not installed`;
    throw new CastoreError("unimplemented", text, { cause: error });
  }
}
