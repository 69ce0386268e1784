import type { Dispatcher } from "undici";
import { collectAtMost, concatBytes, copyBytes } from "../bytes/byte-string.ts";
import type { ObjectPart } from "./read-parts.ts";

/** Answers that say that there is no such object. */
export const ABSENT: ReadonlySet<number> = new Set([404, 410]);

const NOTHING = new Uint8Array(0);

/** An answer other than what was hoped for. */
export class HttpError extends Error {
  readonly status: number;

  constructor(status: number, found = "") {
    super(`the server answered ${status}${found}`);
    this.status = status;
  }
}

type Answer = Pick<Dispatcher.ResponseData, "statusCode" | "headers" | "body">;

/** An answer with all of an object. */
interface WholeAnswer {
  readonly iterator: AsyncIterator<Uint8Array>;
  readonly version: string | undefined;
  /** How much of it was read. */
  at: number;
  /** What has come already of what follows. */
  rest: Uint8Array;
}

/**
 * The parts of one object, each of which is asked for as a range. Where a server takes no ranges, its answer is all of
 * the object: it is read on from part to part, and asked for again, and read up to the part, where it breaks off.
 */
export class HttpParts implements AsyncDisposable {
  readonly #send: (headers: Record<string, string>) => Promise<Answer>;
  #whole: WholeAnswer | undefined;

  /** @param send asks for the object with some headers */
  constructor(send: (headers: Record<string, string>) => Promise<Answer>) {
    this.#send = send;
  }

  /**
   * Gets a part of the object, once.
   *
   * @param version what the parts before were of, if the server tells
   * @returns `undefined` if there is no object, or not of this version any more
   * @throws HttpError for any other answer; whatever a broken one throws
   */
  async get(start: number, end: number, version?: string): Promise<ObjectPart | undefined> {
    if (this.#whole?.at === start) return await this.#readOn(this.#whole, start, end);
    const { statusCode, headers, body } = await this.#send({
      range: `bytes=${start}-${end - 1}`,
      ...(version?.startsWith('"') && { "if-range": version }), // no weak one: they are never the same
    });
    if (statusCode === 200 || statusCode === 206) {
      const found = versionOf(headers);
      if (version !== undefined && found !== version) {
        await body.dump();
        return undefined;
      }
      if (statusCode === 206) {
        return { data: await readRange(headers, body, start, end), version: found };
      }
      const iterator = body[Symbol.asyncIterator]();
      this.#whole = { iterator, version: found, at: 0, rest: NOTHING };
      return await this.#readOn(this.#whole, start, end);
    }
    await body.dump();
    if (ABSENT.has(statusCode)) return undefined;
    if (statusCode === 416) return { data: NOTHING }; // it begins behind the end
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

/** What an answer says of which of the objects it is that had this key one after the other. */
function versionOf({ etag, "last-modified": modified }: Answer["headers"]): string | undefined {
  return (etag ?? modified)?.toString();
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
