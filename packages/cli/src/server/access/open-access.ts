import type { AccessControl } from "./access-control.ts";
import { sourceOf } from "./failure-limit.ts";

/** Admits every request. */
export const OPEN_ACCESS: AccessControl = { admit: ({ peer }) => ({ client: sourceOf(peer) }) };
