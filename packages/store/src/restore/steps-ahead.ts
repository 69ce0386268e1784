import {
  type AbortOptions,
  type B3Digest,
  type BlobService,
  freeMemory,
  type Node,
} from "@tvix/castore";
import type { TreeReader } from "../nar/tree-reader.ts";
import {
  BYTES_PER_BATCH,
  type FileStep,
  isSmallFile,
  type Step,
  walkSteps,
} from "../nar/walk-steps.ts";

/** Where the contents of a tree come from, with its directories read. */
export interface StepSources {
  readonly blobService: BlobService;
  readonly tree: TreeReader;
}

/** Consecutive steps, with the contents of the small files among them. */
interface StepsAhead {
  readonly steps: readonly Step[];
  /**
   * The contents of each small file, in order, which are freed when the next steps are asked for; `undefined` for one that could
   * not be read: reading it again tells why.
   */
  readonly files: readonly (Uint8Array | undefined)[];
}

/**
 * Walks a tree as {@link walkSteps} does, and reads small files ahead.
 *
 * @param options.readAhead how many bytes of contents may be held; a batch of small files is held in any case
 */
export async function* stepsAhead(
  root: Node,
  sources: StepSources,
  { signal: callerSignal, readAhead }: AbortOptions & { readAhead: number },
): AsyncGenerator<StepsAhead> {
  const abandon = new AbortController();
  const signal = callerSignal ? AbortSignal.any([callerSignal, abandon.signal]) : abandon.signal;
  const walk = walkSteps(root, sources.tree);
  const window: { steps: readonly Step[]; files: Promise<StepsAhead["files"]> }[] = [];
  try {
    for (let ended = false; ; ) {
      while (
        !ended &&
        (window.length === 0 || (window.length + 1) * BYTES_PER_BATCH <= readAhead)
      ) {
        const { value: steps } = await walk.next();
        ended = steps === undefined;
        if (steps === undefined) break;
        const files = sources.blobService.readMany(steps.filter(isSmallFile).map(blobOf), {
          signal,
        });
        files.catch(() => undefined); // handled when the batch is rendered
        window.push({ steps, files });
      }
      const next = window.shift();
      if (next === undefined) return;
      const files = await next.files;
      yield { steps: next.steps, files };
      freeMemory(files.filter((file) => file !== undefined));
    }
  } finally {
    abandon.abort(new Error("Nobody reads the tree any more"));
    await Promise.allSettled(window.map(({ files }) => files));
  }
}

function blobOf({ file: { digest, size } }: FileStep): { digest: B3Digest; size: number } {
  return { digest, size: Number(size) };
}
