import { mapInParallel } from "@tvix/castore";
import {
  fingerprint,
  type PathInfo,
  type PathInfoService,
  readSigningKey,
  type SigningKey,
} from "@tvix/store";
import { absolutePath } from "../arguments.ts";
import type { ServiceOptions } from "../options/addresses.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { writeStdout } from "../terminal/output.ts";
import { findClosure, lookUpStorePaths } from "./store-path-arguments.ts";
import { withServices } from "./with-services.ts";

/** Options of {@link sign} about what is signed. */
export interface SignOptions {
  /** Path of the secret key. */
  keyFile: string;
  /** Whether to sign all store paths. Default: false. */
  all?: boolean;
  /** Whether to sign what the store paths refer to. Default: false. */
  closure?: boolean;
}

/** How many store paths are signed together. */
const BATCH = 64;

/** How many of these are stored at the same time. */
const CONCURRENCY = 8;

/** Adds signatures to store paths, and prints those that were signed on stdout. */
export async function sign(
  args: readonly string[],
  options: ServiceOptions & TracingOptions & SignOptions,
  { signal }: Interrupt,
): Promise<void> {
  const { keyFile, all, closure, ...storeOptions } = options;
  const key = await readSigningKey(absolutePath(keyFile));
  await withServices("sign", storeOptions, { signal }, async ({ pathInfoService }) => {
    const selected = async (): Promise<readonly PathInfo[]> => {
      const found = await lookUpStorePaths(args, pathInfoService, { signal });
      const named = found.filter((path) => path !== undefined);
      return closure ? await findClosure(named, pathInfoService, { signal }) : named;
    };
    const paths = all ? pathInfoService.list({ signal }) : await selected();
    let batch: PathInfo[] = [];
    const signBatch = async () => {
      const lines = await mapInParallel(
        batch,
        CONCURRENCY,
        (path, { signal }) => signOne(path, key, pathInfoService, signal),
        { signal },
      );
      await writeStdout(lines.join(""), { signal });
      batch = [];
    };
    for await (const path of paths) {
      batch.push(path);
      if (batch.length >= BATCH) await signBatch();
    }
    if (batch.length > 0) await signBatch();
  });
}

/** Signs a store path, unless it is signed by the key. Returns the line to print, empty if it was signed. */
async function signOne(
  path: PathInfo,
  key: SigningKey,
  pathInfoService: PathInfoService,
  signal: AbortSignal,
): Promise<string> {
  const text = fingerprint(path);
  if (path.signatures.some((signature) => key.verifyingKey.verify(text, signature))) return "";
  await pathInfoService.put({ ...path, signatures: [key.sign(text)] }, { signal });
  return `${path.storePath.toAbsolutePath()}\n`;
}
