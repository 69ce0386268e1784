import type { Need, Supplies } from "./need.ts";

/** What became of a request. */
export type Outcome =
  | { readonly type: "reply"; readonly parts: readonly Uint8Array[] }
  | { readonly type: "error"; readonly errno: number }
  /** Nothing is to be answered. */
  | { readonly type: "silence" }
  /** The same request is handled again once these were met. */
  | { readonly type: "wait"; readonly needs: readonly Need[] };

/** What was fetched for a request, by the keys of its needs. */
export type Fetched = ReadonlyMap<string, Supplies[Need["type"]]>;

/** The outcome of a request that is answered with these bytes. */
export function reply(...parts: readonly Uint8Array[]): Outcome {
  return { type: "reply", parts };
}

/** The outcome of a request that is refused. */
export function failure(errno: number): Outcome {
  return { type: "error", errno };
}

/** The outcome of a request for which something has to be fetched. */
export function wait(need: Need): Outcome {
  return { type: "wait", needs: [need] };
}
