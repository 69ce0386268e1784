import type { DirectMethod } from "@tvix/castore/rpc";
import type { AccessControl, Grant } from "./access-control.ts";
import { sourceOf } from "./failure-limit.ts";
import { OPEN_ACCESS } from "./open-access.ts";
import type { Scope } from "./scope.ts";
import { StoreNames } from "./store-names.ts";
import { UploadLimits } from "./upload-limits.ts";

/** Options of a {@link Guard}. */
export interface GuardOptions {
  /** Decides who may do what. Default: everybody may do everything. */
  access?: AccessControl | undefined;
  /** Bounds uploads. Default: as {@link UploadLimits} has it. */
  uploads?: UploadLimits | undefined;
  /** Carries which store paths a request may register to the PathInfo service that it guards. */
  storeNames?: StoreNames | undefined;
}

/** A request at the guard. */
export interface GuardedRequest {
  /** The scope that it needs; `undefined` if everybody may make it. */
  readonly scope: Scope | undefined;
  /** Its header `authorization`. */
  readonly authorization: string | undefined;
  /** The client, as `host:port` or `unix`. */
  readonly peer: string;
  /** Called with the name of the token that it came with. */
  readonly onToken: (name: string) => void;
}

/** Lets requests pass that access control and limits admit, whatever their protocol. */
export class Guard {
  /** The limits of uploads that are calls. */
  readonly uploads: UploadLimits;
  readonly #access: AccessControl;
  readonly #storeNames: StoreNames;

  constructor({
    access = OPEN_ACCESS,
    uploads = new UploadLimits(),
    storeNames = new StoreNames(),
  }: GuardOptions = {}) {
    this.#access = access;
    this.uploads = uploads;
    this.#storeNames = storeNames;
  }

  /**
   * Runs an action for a request that is admitted, at once where nothing has to be computed for that.
   *
   * @param action gets whose limits the request counts for
   * @throws AccessRefusal for a request that is not admitted, or rejects with it; whatever the action throws
   */
  pass<T>(request: GuardedRequest, action: (client: string) => T): T | Promise<T> {
    const { scope, authorization, peer, onToken } = request;
    if (scope === undefined) return action(sourceOf(peer));
    const run = ({ client, tokenName, storeNames }: Grant) => {
      if (tokenName !== undefined) onToken(tokenName);
      return this.#storeNames.run(storeNames, () => action(client));
    };
    const admitted = this.#access.admit({ scope, authorization, peer });
    return admitted instanceof Promise ? admitted.then(run) : run(admitted);
  }

  /**
   * Runs an action for a call that is admitted. If it uploads, it waits for its turn before.
   *
   * @param signal aborts when the call ends early
   * @throws AccessRefusal as {@link pass} does, and for an upload that has waited too long
   */
  async call<T>(
    request: GuardedRequest,
    signal: AbortSignal,
    action: () => Promise<T>,
  ): Promise<T> {
    return await this.pass(request, async (client): Promise<T> => {
      if (request.scope !== "write") return await action();
      await this.uploads.enter(client, signal);
      try {
        return await action();
      } finally {
        this.uploads.leave(client);
      }
    });
  }

  /** Returns a method that answers a call only if it is admitted, and takes an upload up to its limit only. */
  method(method: DirectMethod, request: GuardedRequest): DirectMethod {
    return {
      ...method,
      answer: (requests, signal, sender) =>
        this.call(request, signal, () => {
          const limited = request.scope === "write" ? this.#atMost(requests) : requests;
          return method.answer(limited, signal, sender);
        }),
    };
  }

  #atMost(pieces: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
    const { uploads } = this;
    if (uploads.maxBytes === Number.POSITIVE_INFINITY) return pieces;
    return {
      async *[Symbol.asyncIterator]() {
        let bytes = 0;
        for await (const piece of pieces) {
          bytes += piece.length;
          if (bytes > uploads.maxBytes) throw uploads.tooLarge();
          yield piece;
        }
      },
    };
  }
}
