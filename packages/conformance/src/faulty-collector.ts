import type { B3Digest } from "@tvix/castore";
import type { FaultPlan } from "./fault-plan.ts";

/** What writers of blobs and putters of trees have in common. */
export interface Collector<T> extends AsyncDisposable {
  add(item: T): Promise<void>;
  close(): Promise<B3Digest>;
}

/** A writer, or putter, of which calls fail. It fails for good then, as what was added may be missing. */
export function faultyCollector<T>(
  plan: FaultPlan,
  collector: Omit<Collector<T>, "add">,
  add: (item: T) => Promise<void>,
): Collector<T> {
  let failure: { readonly error: unknown } | undefined;
  let closed: Promise<B3Digest> | undefined;
  const call = async () => {
    if (failure !== undefined) throw failure.error;
    try {
      await plan.call();
    } catch (error) {
      failure = { error };
      throw error;
    }
  };
  return {
    async add(item) {
      await call();
      await add(item);
    },
    close() {
      closed ??= (async () => {
        await call();
        const digest = await collector.close();
        await call();
        return digest;
      })();
      return closed;
    },
    [Symbol.asyncDispose]: () => collector[Symbol.asyncDispose](),
  };
}
