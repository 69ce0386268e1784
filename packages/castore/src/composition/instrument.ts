import type { Attributes } from "@opentelemetry/api";
import type { BlobReader, BlobService } from "../blobservice/blob-service.ts";
import type { OutboardSource } from "../blobservice/verified-range.ts";
import type { AbortOptions } from "../bytes/abort-options.ts";
import type { DirectoryService } from "../directoryservice/directory-service.ts";
import type { B3Digest } from "../model/digest.ts";
import { instrumentFiles } from "./instrument-files.ts";
import { type Measure, type StoreCall, StoreCalls } from "./store-calls.ts";

/** Instrumentation of the calls of one method. */
export interface MethodPlan<Args extends readonly unknown[]> {
  /** Returns the span attributes of the arguments. Called only if spans are recorded. */
  readonly about?: (...args: Args) => Attributes;
  /**
   * Kind of the result. `value`: a promise of a value. `stream`: a stream. `openedStream`: a promise of a stream or of
   * `undefined`. `collector`: an object that takes items until it is closed or disposed of, such as a writer; the call
   * lasts until then. `reader`: a promise of an object whose own methods are calls, or of `undefined`. Default:
   * `value`.
   */
  readonly returns?: "value" | "stream" | "openedStream" | "collector" | "reader";
  /** Attribute that counts the pieces of a stream or the items of a collector. */
  readonly measure?: Measure<never>;
  /** The contract of a reader, and the plan for it. */
  readonly reader?: readonly [contract: string, plan: Readonly<Record<string, MethodPlan<never>>>];
}

/** How a part of a service, which has methods of its own, is instrumented. */
interface PartPlan<Part> {
  readonly part: (part: Part, calls: StoreCalls) => Part;
}

/** A plan for each method and part of a contract except its disposal. */
export type ContractPlan<T> = {
  readonly [Name in keyof T as Name extends string
    ? NonNullable<T[Name]> extends object
      ? Name
      : never
    : never]-?: NonNullable<T[Name]> extends (...args: infer Args) => unknown
    ? MethodPlan<Args>
    : PartPlan<NonNullable<T[Name]>>;
};

const BYTES: Measure<Uint8Array> = { attribute: "tvix.bytes", of: ({ length }) => length };
const FRAMES: Measure<readonly Uint8Array[]> = {
  attribute: "tvix.bytes",
  of: (frames) => frames.reduce((sum, { length }) => sum + length, 0),
};
const ITEMS: Measure<unknown> = { attribute: "tvix.count", of: () => 1 };

const digest = (digest: B3Digest): Attributes => ({ "tvix.digest": digest.toString() });
const count = ({ length }: { readonly length: number }): Attributes => ({ "tvix.count": length });

const BLOB_READER: ContractPlan<Pick<BlobReader, "read">> = {
  read: { about: (offset, length) => ({ "tvix.offset": offset, "tvix.bytes": length }) },
};

/** The calls of a blob service. */
export const BLOB_SERVICE_PLAN: ContractPlan<BlobService & Partial<OutboardSource>> = {
  has: { about: digest },
  hasMany: { about: count },
  statMany: { about: count },
  open: { about: digest, returns: "reader", reader: ["BlobReader", BLOB_READER] },
  read: { about: digest, returns: "openedStream", measure: BYTES },
  readMany: { about: count },
  readManyStored: { about: count },
  readManyInto: { about: (_, blobs) => count(blobs) },
  putMany: { about: count },
  putList: { about: digest },
  putFrames: { about: ({ chunks }) => count(chunks) },
  frames: { about: count, returns: "stream", measure: BYTES },
  frameSizes: { about: count },
  storedSizes: { about: count },
  verifiedFrames: { about: count, returns: "stream", measure: FRAMES },
  files: { part: instrumentFiles },
  openWriter: { returns: "collector", measure: BYTES },
  outboard: { about: digest },
};

/** The calls of a directory service. */
export const DIRECTORY_SERVICE_PLAN: ContractPlan<DirectoryService> = {
  get: { about: digest },
  getMany: { about: count },
  hasMany: { about: count },
  getRecursive: { about: digest, returns: "stream", measure: ITEMS },
  openPutter: { returns: "collector", measure: ITEMS },
};

type AnyMethod = (...args: unknown[]) => unknown;
type AnyPlan = MethodPlan<never>;

/**
 * Wraps a service so that its errors name the store and each call is a span. Without recorded spans, a call costs about
 * a microsecond. Disposing of the wrapper disposes of the service, once.
 *
 * @param contract name of the contract, such as `BlobService`
 * @param store the name of the store, without secrets
 */
export function instrument<T extends AsyncDisposable>(
  service: T,
  contract: string,
  store: string,
  plan: ContractPlan<T>,
): T {
  const calls = new StoreCalls(contract, store);
  const plans = plan as Readonly<Record<string, AnyPlan | PartPlan<unknown>>>;
  const parts = new Map<string, unknown>();
  let disposed: Promise<void> | undefined;
  const dispose: AnyMethod = () => {
    disposed ??= Promise.resolve(service[Symbol.asyncDispose]());
    return disposed;
  };
  const methods = new Map<PropertyKey, AnyMethod>([[Symbol.asyncDispose, dispose]]);
  return new Proxy(service, {
    get(target, name) {
      const known = methods.get(name);
      if (known !== undefined) return known;
      const value: unknown = Reflect.get(target, name);
      if (value === undefined || typeof name === "symbol") return value;
      const plan = plans[name];
      if (plan && "part" in plan) {
        if (!parts.has(name)) parts.set(name, plan.part(value, calls));
        return parts.get(name);
      }
      if (typeof value !== "function") return value;
      const method: AnyMethod = value.bind(target);
      const instrumented = plan ? instrumentMethod(calls, store, name, plan, method) : method;
      methods.set(name, instrumented);
      return instrumented;
    },
    // Replacing a method changes the wrapper, not the service.
    defineProperty(_, name, { value }) {
      methods.set(name, value);
      return true;
    },
  });
}

function instrumentMethod(
  calls: StoreCalls,
  store: string,
  name: string,
  { about, returns = "value", measure, reader }: AnyPlan,
  method: AnyMethod,
): AnyMethod {
  const describe = (args: unknown[]) => () => about?.(...(args as never)) ?? {};
  const begin = (args: unknown[]) => calls.begin(name, describe(args), optionsIn(args));
  const counted = (measure ?? ITEMS) as Measure<unknown>;
  switch (returns) {
    case "stream":
      return (...args) => {
        const open = () => method(...args) as AsyncIterable<unknown>;
        return calls.stream(name, describe(args), optionsIn(args), open, counted);
      };
    case "openedStream":
      return async (...args) => {
        const call = begin(args);
        const open = () => method(...args) as Promise<AsyncIterable<unknown> | undefined>;
        const stream = await call.run(open);
        if (stream !== undefined) return call.follow(stream, counted);
        call.end();
        return undefined;
      };
    case "collector":
      return (...args) => {
        const call = begin(args);
        return followCollector(call, call.runSync(() => method(...args)) as object, counted);
      };
    case "reader":
      return async (...args) => {
        const open = () => method(...args) as Promise<AsyncDisposable | undefined>;
        const opened = await calls.run(name, describe(args), optionsIn(args), open);
        const [contract, plan] = reader!;
        return opened && instrument(opened, contract, store, plan as ContractPlan<AsyncDisposable>);
      };
    case "value":
      return (...args) => {
        const run = () => method(...args) as Promise<unknown>;
        return calls.run(name, describe(args), optionsIn(args), run);
      };
  }
}

/** Makes each method of a collector a step of the call that opened it. */
function followCollector(call: StoreCall, collector: object, measure: Measure<unknown>): object {
  let length = 0;
  return new Proxy(collector, {
    get(target, name) {
      const method: unknown = Reflect.get(target, name);
      if (typeof method !== "function") return method;
      return async (...args: unknown[]) => {
        const result = await call.run(async () => await Reflect.apply(method, target, args));
        if (name === "close") {
          call.end({ "tvix.digest": String(result), [measure.attribute]: length });
        } else if (name === Symbol.asyncDispose) {
          call.end({ [measure.attribute]: length });
        } else {
          length += measure.of(args[0]);
        }
        return result;
      };
    },
  });
}

/** Returns the options of a call: its last argument, if that has a signal. */
function optionsIn(args: readonly unknown[]): AbortOptions | undefined {
  const last = args.at(-1);
  const isOptions = typeof last === "object" && last !== null && "signal" in last;
  return isOptions ? (last as AbortOptions) : undefined;
}
