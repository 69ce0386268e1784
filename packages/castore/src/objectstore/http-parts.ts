import type { Dispatcher } from "undici";
import type { AbortOptions } from "../bytes/abort-options.ts";
import { collectAtMost, concatBytes, copyBytes } from "../bytes/byte-string.ts";
import { COMPRESSIONS, type Compression, decompress } from "../compression/decompress.ts";
import { CastoreError } from "../model/errors.ts";
import type { ObjectPart } from "./read-parts.ts";

/** The statuses of answers for an object that does not exist. */
export const ABSENT: ReadonlySet<number> = new Set([404, 410]);

const NOTHING = new Uint8Array(0);

/** An answer that is neither the object nor its absence. */
export class HttpError extends Error {
  readonly status: number;

  constructor(status: number, found = "") {
    super(`the server answered ${status}${found}`);
    this.status = status;
  }
}

type Answer = Pick<Dispatcher.ResponseData, "statusCode" | "headers" | "body">;

/** An answer with all of an object, decoded. */
interface WholeAnswer {
  readonly iterator: AsyncIterator<Uint8Array>;
  readonly version: string | undefined;
  /** How many bytes of it were read. */
  at: number;
  /** Bytes that follow, and have come already. */
  rest: Uint8Array;
}

/**
 * Reads one object part by part, each of which is requested as a range. Where a server takes no ranges, or sends an
 * object encoded, its answer is all of the object: it is read on from part to part, and where it breaks off, requested
 * again and read up to the part.
 */
export class HttpParts implements AsyncDisposable {
  readonly #send: (headers: Record<string, string>) => Promise<Answer>;
  readonly #options: AbortOptions;
  #whole: WholeAnswer | undefined;

  /** @param send requests the object with some headers */
  constructor(send: (headers: Record<string, string>) => Promise<Answer>, options: AbortOptions) {
    this.#send = send;
    this.#options = options;
  }

  /**
   * Requests a part of the object, once.
   *
   * @param version what the parts before were of, if the server tells
   * @returns `undefined` if there is no object, or no longer of this version
   * @throws HttpError for any other answer; whatever a broken one throws
   */
  async get(start: number, end: number, version?: string): Promise<ObjectPart | undefined> {
    if (this.#whole?.at === start) return await this.#readOn(this.#whole, start, end);
    const range = `bytes=${start}-${end - 1}`;
    const isStrong = version?.startsWith('"'); // weak ones are never the same
    let answer = await this.#send({ range, ...(isStrong && { "if-range": version }) });
    const isPart = answer.statusCode === 206 && isEncoded(answer.headers);
    if (isPart || answer.statusCode === 416) {
      // A part of what was encoded is of no use; what begins behind its end may be within what is decoded.
      await answer.body.dump();
      answer = await this.#send({});
      if (answer.statusCode === 200 && !isEncoded(answer.headers)) {
        await answer.body.dump();
        return { data: NOTHING, version };
      }
    }
    const { statusCode, headers, body } = answer;
    if (statusCode === 200 || statusCode === 206) {
      const found = versionOf(headers);
      if (version !== undefined && found !== version) {
        await body.dump();
        return undefined;
      }
      if (statusCode === 206) {
        return { data: await readRange(headers, body, start, end), version: found };
      }
      const contents = await decoded(headers, body, this.#options);
      const iterator = contents[Symbol.asyncIterator]();
      this.#whole = { iterator, version: found, at: 0, rest: NOTHING };
      return await this.#readOn(this.#whole, start, end);
    }
    await body.dump();
    if (ABSENT.has(statusCode)) return undefined;
    throw new HttpError(statusCode);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#whole?.iterator.return?.();
  }

  /** Reads a whole object on up to the end of a part. */
  async #readOn(whole: WholeAnswer, start: number, end: number): Promise<ObjectPart> {
    const pieces: Uint8Array[] = [];
    try {
      while (whole.at < end) {
        if (whole.rest.length === 0) {
          const { done, value } = await whole.iterator.next();
          if (done) break;
          whole.rest = value;
        }
        const piece = whole.rest.subarray(0, end - whole.at);
        pieces.push(copyBytes(piece.subarray(Math.max(start - whole.at, 0))));
        whole.rest = whole.rest.subarray(piece.length);
        whole.at += piece.length;
      }
      return { data: concatBytes(pieces), version: whole.version };
    } catch (error) {
      this.#whole = undefined;
      throw error;
    }
  }
}

/** Returns what an answer tells of the version of the object. */
export function versionOf({
  etag,
  "last-modified": modified,
}: Answer["headers"]): string | undefined {
  return (etag ?? modified)?.toString();
}

/** Tells whether an answer is encoded, though nobody asked for that: an object may be stored so. */
export function isEncoded({ "content-encoding": encoding = "" }: Answer["headers"]): boolean {
  return !["", "identity"].includes(encoding.toString());
}

async function decoded(
  headers: Answer["headers"],
  body: Answer["body"],
  options: AbortOptions,
): Promise<AsyncIterable<Uint8Array>> {
  if (!isEncoded(headers)) return body;
  const encoding = String(headers["content-encoding"]).toLowerCase().replace(/^x-/, "");
  if (COMPRESSIONS.includes(encoding as Compression)) {
    return decompress(body, encoding as Compression, options);
  }
  await body.dump();
  const known = COMPRESSIONS.join(", ");
  const text = `expected content encoding ${known}, found ${JSON.stringify(encoding)}`;
  throw new CastoreError("unimplemented", text);
}

/** @throws HttpError for another part than was asked for */
async function readRange(
  headers: Answer["headers"],
  body: Answer["body"],
  start: number,
  end: number,
): Promise<Uint8Array> {
  const range = headers["content-range"];
  const [, first] = /^bytes (\d+)-/.exec(String(range)) ?? [];
  if (Number(first) === start) {
    const data = await collectAtMost(body, end - start);
    if (data !== undefined) return data;
  }
  await body.dump();
  throw new HttpError(206, ` and range "${range}", which is not ${start} to ${end - 1}`);
}
