import {
  type AbortOptions,
  type B3Digest,
  type BlobService,
  type DirectoryService,
  freeMemory,
  type Node,
} from "@tvix/castore";
import { TreeReader } from "./tree-reader.ts";
import {
  BYTES_PER_BATCH,
  type FileStep,
  isSmallFile,
  type NarPart,
  refusal,
  type Step,
  walkSteps,
} from "./walk-steps.ts";
import { type NarSink, NarWriter } from "./writer.ts";

/** Where the contents of a NAR come from. */
export interface NarSources {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
}

/** How many bytes are read ahead at most, unless the caller says otherwise. */
const READ_AHEAD = 6 * BYTES_PER_BATCH;

/** Options of {@link renderNar}. */
export interface RenderOptions extends AbortOptions {
  /**
   * Returns how many bytes of contents may be held, read ahead of who iterates. It is asked again and again: a server
   * bounds what all of its NARs hold together. A batch of small files, up to 768 KiB, is held in any case. Default: 3 MiB.
   */
  readonly readAhead?: () => number;
}

/** Where the contents of a NAR come from, with its directories read. */
interface PartSources {
  readonly blobService: BlobService;
  readonly tree: TreeReader;
}

/**
 * Renders the NAR of a tree, in pieces of up to a few hundred KiB, each lent until the next one is asked for. The
 * directories are read by one `getRecursive`. Memory does not depend on the size of the tree, but on its depth and the
 * widest directory. When iterating ends, whatever the reason, no read is left running.
 *
 * @throws StoreError `not_found` if the root directory or a blob is missing, `data_loss` if a blob has another
 *   size than its node states, both naming digest and path; whatever the services throw: `data_loss` if a directory
 *   below the root is missing
 */
export async function* renderNar(
  root: Node,
  { blobService, directoryService }: NarSources,
  options: RenderOptions = {},
): AsyncGenerator<Uint8Array> {
  options.signal?.throwIfAborted();
  await using tree = new TreeReader(root, directoryService, options);
  yield* renderPart(root, { blobService, tree }, options);
  await tree.readAll(); // the directory service checks the tree as a whole at its end
}

/**
 * Renders a part of a NAR, as {@link renderNar} does.
 *
 * @param options.part which part is rendered; nothing before it is read. Default: all of the NAR
 */
export async function* renderPart(
  root: Node,
  sources: PartSources,
  { signal, part, readAhead = () => READ_AHEAD }: RenderOptions & { part?: NarPart } = {},
): AsyncGenerator<Uint8Array> {
  signal?.throwIfAborted();
  const { start, end } = part ?? { start: 0, end: Number.POSITIVE_INFINITY };
  if (start >= end) return;
  const ready: Uint8Array[] = [];
  const sink: NarSink = (bytes, offset) => {
    const wanted = bytes.subarray(Math.max(start - offset, 0), Math.max(end - offset, 0));
    if (wanted.length > 0) ready.push(wanted);
  };
  let writer = new NarWriter(sink);
  for await (const { steps, files } of stepsAhead(root, sources, { part, signal, readAhead })) {
    let small = 0;
    for (const step of steps) {
      signal?.throwIfAborted();
      if (step.type === "begin") writer = new NarWriter(sink, step);
      else writeStep(writer, step);
      const contents = isSmallFile(step) ? files[small++] : undefined;
      if (step.type === "file" && contents === undefined) {
        const size = Number(step.file.size);
        const offset = Math.min(Math.max(start - writer.offset, 0), size);
        const length = Math.min(end - writer.offset, size) - offset;
        if (offset > 0) writer.skipContents(offset);
        if (length > 0) {
          const range = { offset, length, readAhead: readAhead() };
          for await (const data of readFile(step, range, sources, signal)) {
            if (data.length > 0) writer.contents(data);
            yield* ready.splice(0);
            freeMemory([data]);
          }
        }
      } else if (contents !== undefined && contents.length > 0) {
        writer.contents(contents);
      }
      if (ready.length > 0) yield* ready.splice(0);
    }
  }
  writer.finish();
  yield* ready;
}

/** Writes all of a step but the contents of a file. */
export function writeStep(
  writer: NarWriter,
  step: Exclude<Step, { readonly type: "begin" }>,
): void {
  if (step.type !== "leave" && step.place !== undefined) writer.entry(step.place.name);
  switch (step.type) {
    case "enter":
      writer.enterDirectory();
      break;
    case "leave":
      writer.leaveDirectory();
      break;
    case "symlink":
      writer.symlink(step.target);
      break;
    case "file":
      writer.file(step.file.size, step.file.executable);
  }
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

/** Walks a tree as {@link walkSteps} does, and reads small files ahead. */
export async function* stepsAhead(
  root: Node,
  sources: PartSources,
  options: Required<Pick<RenderOptions, "readAhead">> &
    RenderOptions & { part?: NarPart | undefined },
): AsyncGenerator<StepsAhead> {
  const { part, signal: callerSignal, readAhead } = options;
  const abandon = new AbortController();
  const signal = callerSignal ? AbortSignal.any([callerSignal, abandon.signal]) : abandon.signal;
  const walk = walkSteps(root, sources.tree, part);
  const window: { steps: readonly Step[]; files: Promise<StepsAhead["files"]> }[] = [];
  try {
    for (let ended = false; ; ) {
      while (!ended && (window.length === 0 || isWithin(readAhead(), window.length))) {
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
    abandon.abort(new Error("Nobody reads the NAR any more"));
    await Promise.allSettled(window.map(({ files }) => files));
  }
}

function blobOf({ file: { digest, size } }: FileStep): { digest: B3Digest; size: number } {
  return { digest, size: Number(size) };
}

/** Whether another batch may be read ahead of so many. */
function isWithin(bytes: number, batches: number): boolean {
  return (batches + 1) * BYTES_PER_BATCH <= bytes;
}

async function* readFile(
  { file: { digest, size }, place }: FileStep,
  { offset, length, readAhead }: { offset: number; length: number; readAhead: number },
  { blobService }: PartSources,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const end = offset + length;
  const range = BigInt(length) < size ? { offset, length } : {}; // a read without a range shows if the blob is longer
  const stream = await blobService.read(digest, { ...range, signal, readAhead });
  if (stream === undefined) throw refusal("not_found", `blob ${digest}`, place, "is missing");
  let found = offset;
  for await (const data of stream) {
    found += data.length;
    if (found > end) break;
    yield data;
  }
  if (found !== end) {
    const bytes = found > end ? `more than ${end}` : `only ${found}`;
    throw refusal("data_loss", `blob ${digest}`, place, `has ${bytes} bytes, expected ${size}`);
  }
}
