import { CastoreError, type ErrorCode } from "@tvix/castore";
import type { Faults } from "./fault-plan.ts";

/** What goes wrong once at the far half of a service, and the codes with which reading may fail for it. */
export const FAR_FAULTS: readonly (readonly [
  title: string,
  faults: Faults,
  codes: readonly ErrorCode[],
])[] = [
  ["gives other contents", { corrupt: 1 }, ["data_loss"]],
  ["cuts contents off", { truncate: 1 }, ["data_loss"]],
  ["fails", { fail: 1 }, ["unavailable"]],
];

/** A service of two halves, of which the far one goes wrong. */
export interface Tiers<Service> extends AsyncDisposable {
  readonly service: Service;
  readonly near: Service;
  /** What is behind the far half, where nothing goes wrong. */
  readonly stored: Service;
  readonly far: { readonly faults: number; heal(): void };
}

/**
 * Runs a check with a fault at each of the first places where there can be one, then at some of those that follow,
 * until the check has passed without a fault. Returns after how many places that was.
 */
export async function withFaultAnywhere<Service>(
  open: (faults: Faults) => Promise<Tiers<Service>>,
  faults: Faults,
  check: (tiers: Tiers<Service>) => Promise<void>,
): Promise<number> {
  for (let after = 0; ; after += 1 + (after >> 2)) {
    await using tiers = await open({ ...faults, atMost: 1, after });
    await check(tiers);
    if (tiers.far.faults === 0) return after;
  }
}

/** Returns what a call gives; `"failed"` if it rejects with one of some codes. */
export async function resultOrFailure<T>(
  call: () => Promise<T>,
  codes: readonly ErrorCode[],
): Promise<T | "failed"> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof CastoreError && codes.includes(error.code)) return "failed";
    throw error;
  }
}
