import { CastoreError, type ErrorCode } from "../model/errors.ts";
import type { ObjectHead, ObjectMeta } from "./object-store.ts";
import type { ObjectPart } from "./read-parts.ts";

/**
 * One bucket, or container, of a cloud, by the cloud's SDK. Every method makes its request once: repeating it, giving
 * up when it takes too long, and what its errors mean is up to `BucketObjectStore`. Keys are whole, with the prefix.
 * Bytes that are handed over are never changed or reused by the caller, however the call ends: an SDK may read them
 * for as long as it likes.
 */
export interface Bucket extends AsyncDisposable {
  /** The address of the bucket, for messages: `s3://bucket`. */
  readonly name: string;

  /**
   * Reads a part of an object: no bytes where it begins behind the end; `undefined` if there is no object, or not of
   * that version.
   */
  get(key: string, range: BucketRange, signal: AbortSignal): Promise<ObjectPart | undefined>;

  /** Looks an object up; `undefined` if there is none. */
  head(key: string, signal: AbortSignal): Promise<Omit<ObjectHead, "key"> | undefined>;

  put(key: string, data: Buffer, signal: AbortSignal): Promise<void>;

  /** Fetches one page of keys with a prefix, in order, which may begin before `after`. */
  list(prefix: string, from: ListFrom, signal: AbortSignal): Promise<ObjectPage>;

  /**
   * Deletes an object, if it is of a version where one is given. Where that is not so, nothing happens.
   *
   * @returns `false` where there was none; a service that does not tell gives `true`
   */
  delete(key: string, version: string | undefined, signal: AbortSignal): Promise<boolean>;

  /** Begins an upload in parts. */
  beginUpload(key: string, signal: AbortSignal): Promise<BucketUpload>;

  /** How many parts of an upload may be sent at the same time. */
  readonly partsAtOnce: number;

  /** Says what an error of the SDK means. */
  failureOf(error: unknown): Failure;

  /**
   * Lists one object at most: its error tells what is wrong where the answer to another request cannot, having no body.
   */
  look(signal: AbortSignal): Promise<unknown>;
}

/** What is read of an object. */
export interface BucketRange {
  readonly start: number;
  /** The byte after the last, which may be behind the end of the object. */
  readonly end: number;
  /** The version that the object has to be of. */
  readonly version: string | undefined;
}

/** Where a page of a listing begins. */
export interface ListFrom {
  /** What the page before said in `next`. */
  readonly token: string | undefined;
  /** The listing may leave out keys up to this one. */
  readonly after: string | undefined;
}

/** One page of a listing. */
export interface ObjectPage {
  readonly objects: readonly ObjectMeta[];
  /** Where the next page begins; `undefined` for the last one. */
  readonly next: string | undefined;
}

/** One part of an upload. All but the last have {@link PART_BYTES}. */
interface UploadPart {
  /** 0 for the first. */
  readonly index: number;
  readonly data: Buffer;
  /** Where the part begins in the object. */
  readonly offset: number;
  readonly isLast: boolean;
}

/** An upload in parts that has begun. */
export interface BucketUpload {
  /** Sends a part. Parts come in order, unless several are sent at once. */
  send(part: UploadPart, signal: AbortSignal): Promise<void>;
  /** Makes the object of the parts, all of which were sent. */
  finish(signal: AbortSignal): Promise<void>;
  /** Removes the parts that were sent. */
  abandon(signal: AbortSignal): Promise<void>;
}

/** What an error of an SDK means. */
export interface Failure {
  readonly code: ErrorCode;
  /** What is wrong, and what to do where somebody can: the end of a message. */
  readonly reason: string;
  /** Whether there is an object that is not of the version asked for, or none. */
  readonly isConditionFailed?: boolean;
  /** Whether the answer has no body that tells more than its status: `look` may. */
  readonly isBare?: boolean;
}

/** The end of a message about a bucket that does not exist. */
export const NO_BUCKET = "there is no such bucket, or container";

const CODES: Readonly<Record<number, ErrorCode>> = {
  400: "invalid_argument",
  401: "permission_denied",
  403: "permission_denied",
  404: "not_found",
  409: "aborted",
  412: "aborted",
  413: "resource_exhausted",
  501: "unimplemented",
  507: "resource_exhausted",
};

/**
 * Returns the code for the status of an HTTP answer: `unavailable` where there was none, and for one that may be
 * another the next time.
 */
export function codeOfStatus(status: number | undefined): ErrorCode {
  return CODES[status ?? 0] ?? "unavailable";
}

/** Returns the text of an error without what could be a signature in an address. */
export function textOf(error: unknown): string {
  const { message, errors, code } = error as {
    message?: unknown;
    errors?: unknown;
    code?: unknown;
  };
  // A host with several addresses fails with the errors of all of them, and no text of its own.
  const all: string = Array.isArray(errors) ? errors.map(textOf).join(", ") : "";
  const text = String(message || all || code || error);
  return text.replace(/\?[^\s"']*=[^\s"']*/g, "?...").trim();
}

/** The error of an import, and of what a bundle has in its place. */
const NOT_FOUND = ["ERR_MODULE_NOT_FOUND", "MODULE_NOT_FOUND"];

/** Imports an SDK, which is installed only where it is used. */
export async function loadSdk<T>(name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if (!NOT_FOUND.includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    const text = `Cannot open this object store: package "${name}" is not installed`;
    throw new CastoreError("unimplemented", text, { cause: error });
  }
}
