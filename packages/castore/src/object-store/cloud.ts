/** What the object stores of the clouds have in common. */
import { PassThrough } from "node:stream";
import pRetry from "p-retry";
import { collectBytes } from "../bytes.ts";
import { CastoreError, type ErrorCode } from "../errors.ts";
import type { AbortOptions } from "../options.ts";
import type { ObjectUpload } from "./object-store.ts";
import { onePiece } from "./one-piece.ts";
import { uploadEnded } from "./upload-ended.ts";

/** Objects of up to this many bytes are got whole before they are handed out, so that a break is tried again. */
export const WHOLE_BYTES: number = 1024 * 1024;

/** How many bytes of an upload go into one part, and how many parts are sent at the same time. */
export const PART_BYTES: number = 8 * 1024 * 1024;
export const PARTS_IN_FLIGHT = 2;

/** How often a request is made at most. */
export const ATTEMPTS = 4;

/** How long a connection may take, and be silent, in milliseconds. */
export const CONNECT_TIMEOUT_MS = 10_000;
export const SILENCE_TIMEOUT_MS = 30_000;

const CODES: Readonly<Record<number, ErrorCode>> = {
  400: "invalid_argument",
  401: "permission_denied",
  403: "permission_denied",
  404: "not_found",
  413: "resource_exhausted",
  507: "resource_exhausted",
};

/**
 * Runs a request, and turns what it throws into a CastoreError by the HTTP status of the answer:
 * `unavailable` where there was none, or one that may be another the next time.
 *
 * @param action what is attempted and where, for the message
 * @param statusOf the HTTP status that an error of the SDK carries
 * @throws CastoreError; `signal.reason` when cancelled
 */
export async function request<T>(
  run: () => Promise<T>,
  action: string,
  statusOf: (error: unknown) => number | undefined,
  options?: AbortOptions,
): Promise<T> {
  options?.signal?.throwIfAborted();
  try {
    return await run();
  } catch (error) {
    options?.signal?.throwIfAborted();
    if (error instanceof CastoreError) throw error;
    const code = CODES[statusOf(error) ?? 0] ?? "unavailable";
    const { message } = error as Error;
    throw new CastoreError(code, `${action}: ${message}`, { cause: error });
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

/** Tries again, with growing and random pauses, what broke off in the middle of an answer. */
export async function retryUnavailable<T>(
  run: () => Promise<T>,
  options?: AbortOptions,
): Promise<T> {
  return await pRetry(run, {
    retries: ATTEMPTS - 1,
    minTimeout: 100,
    randomize: true,
    shouldRetry: ({ error }) => error instanceof CastoreError && error.code === "unavailable",
    ...(options?.signal && { signal: options.signal }),
  });
}

/** Runs a request of a store, so that what it throws is by the contract. */
type Guard = <T>(run: () => Promise<T>) => Promise<T>;

/**
 * The contents of an answer, whose errors are by the contract. Short ones are read here and now, and again if
 * they break off.
 *
 * @param open asks for them
 * @param length how many bytes there are
 */
export async function guardedStream(
  open: () => AsyncIterable<Uint8Array> | Promise<AsyncIterable<Uint8Array>>,
  length: number,
  guard: Guard,
  options?: AbortOptions,
): Promise<AsyncIterable<Uint8Array>> {
  if (length > WHOLE_BYTES) return guarded(await guard(async () => await open()), guard);
  const whole = async () => {
    const data = await collectBytes(await open());
    if (data.length === length) return data;
    throw new CastoreError("unavailable", `Cannot read: found ${data.length} of ${length} bytes`);
  };
  return onePiece(await retryUnavailable(() => guard(whole), options));
}

/** A stream whose errors are by the contract. */
export async function* guarded(
  stream: AsyncIterable<Uint8Array>,
  guard: Guard,
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
  /** Resolves when all of it is stored: whether it was, which it is not if there was one already. */
  readonly done: Promise<boolean>;
  /** Removes what was stored of it. */
  abort(): Promise<void>;
}

/** Makes an upload of one that reads a stream, which begins when there is something to send. */
export function uploadThrough(
  key: string,
  start: (body: PassThrough) => StreamUpload,
): ObjectUpload {
  const body = new PassThrough({ highWaterMark: PART_BYTES });
  body.on("error", () => undefined); // told to whoever writes, or closes
  let upload: StreamUpload | undefined;
  let closed: Promise<boolean> | undefined;
  const begin = () => {
    upload ??= start(body);
    upload.done.catch((error) => body.destroy(error)); // whoever writes is told
    return upload;
  };
  return {
    async write(data) {
      if (closed !== undefined || body.destroyed) throw await failureOf(key, upload);
      begin();
      await new Promise<void>((resolve, reject) => {
        body.write(Buffer.from(data), (error) => (error ? reject(error) : resolve()));
      });
    },
    close() {
      closed ??= (async () => {
        const { done } = begin();
        body.end();
        return await done;
      })();
      return closed;
    },
    async [Symbol.asyncDispose]() {
      if (closed !== undefined) {
        await closed.catch(() => undefined); // whoever called close() was told
      } else {
        body.destroy(uploadEnded(key));
        await upload?.abort();
        await upload?.done.catch(() => undefined);
      }
    },
  };
}

async function failureOf(key: string, upload: StreamUpload | undefined): Promise<unknown> {
  try {
    await upload?.done;
  } catch (error) {
    return error;
  }
  return uploadEnded(key);
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
