/** What the object stores of the clouds have in common. */
import { PassThrough } from "node:stream";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { CastoreError } from "../model/errors.ts";
import type { ObjectUpload } from "./object-store.ts";
import { PART_BYTES } from "./read-parts.ts";
import type { StatusOf } from "./retry.ts";
import { uploadEnded } from "./upload-ended.ts";

/** How many parts of an upload are sent at the same time. */
export const PARTS_IN_FLIGHT = 2;

/**
 * Whether something was stored, which it is not if there was one already.
 *
 * @param present the HTTP statuses that say so
 */
export async function unlessPresent(
  store: () => Promise<unknown>,
  statusOf: StatusOf,
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
