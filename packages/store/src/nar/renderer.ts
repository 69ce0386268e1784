import {
  type AbortOptions,
  type B3Digest,
  type BlobService,
  type DirectoryEntry,
  type DirectoryService,
  type FileNode,
  type LentBlobs,
  type Node,
  type PathComponent,
  quoteBytes,
  type SymlinkTarget,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { NarWriter } from "./writer.ts";

/** Where the contents of a NAR come from. */
export interface NarSources {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
}

/** A file of up to this many bytes is read ahead of its turn, together with others. */
const SMALL_FILE = 256 * 1024;

/** How much is read together: steps of the walk, and bytes of the files among them. */
const STEPS_PER_STRETCH = 256;
const BYTES_PER_STRETCH = 512 * 1024;

/** How many stretches are read ahead. */
const STRETCHES_AHEAD = 6;

/**
 * Renders the NAR of a tree, in pieces of up to a few hundred KiB, each lent until the next one is asked for. Memory does not depend on the size
 * of the tree, but on its depth and the widest directory. However iterating ends, nothing is left
 * being read.
 *
 * @throws StoreError `not_found` if a directory or blob is missing, `data_loss` if a blob has another
 *   size than its node states, both naming digest and path; whatever the services throw
 */
export async function* renderNar(
  root: Node,
  sources: NarSources,
  options?: AbortOptions,
): AsyncGenerator<Uint8Array> {
  const signal = options?.signal;
  signal?.throwIfAborted();
  const ready: Uint8Array[] = [];
  const writer = new NarWriter((bytes) => ready.push(bytes));
  for await (const { step, contents } of readAhead(root, sources, signal)) {
    signal?.throwIfAborted();
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
        if (contents === undefined) {
          for await (const data of readFile(step, sources, signal)) {
            if (data.length > 0) writer.contents(data);
            yield* ready.splice(0);
          }
        } else if (contents.length > 0) {
          writer.contents(contents);
        }
    }
    if (ready.length > 0) yield* ready.splice(0);
  }
  writer.finish();
  yield* ready;
}

/** Where a node stands below the root, whose place is `undefined`. */
interface Place {
  readonly name: PathComponent;
  readonly parent: Place | undefined;
}

interface FileStep {
  readonly type: "file";
  readonly place: Place | undefined;
  readonly file: FileNode;
}

/** One thing of the tree, in canonical order. Directories come twice: at their beginning and end. */
type Step =
  | FileStep
  | { readonly type: "enter"; readonly place: Place | undefined }
  | { readonly type: "leave" }
  | {
      readonly type: "symlink";
      readonly place: Place | undefined;
      readonly target: SymlinkTarget;
    };

/** A step, and the contents of a file that were read ahead. */
interface StepAhead {
  readonly step: Step;
  /** `undefined` for what is no file, is large, or could not be read: reading it again tells why. */
  readonly contents: Uint8Array | undefined;
}

/** Consecutive steps, whose small files are read together. */
interface Stretch {
  readonly steps: readonly Step[];
  /** What was read of the small files among the steps, in order. */
  readonly read: Promise<LentBlobs>;
}

async function* readAhead(
  root: Node,
  sources: NarSources,
  callerSignal: AbortSignal | undefined,
): AsyncGenerator<StepAhead> {
  const abandon = new AbortController();
  const signal = callerSignal ? AbortSignal.any([callerSignal, abandon.signal]) : abandon.signal;
  const walk = walkNodes(root, sources.directoryService, signal);
  const window: Stretch[] = [];
  try {
    for (let ended = false; ; ) {
      while (!ended && window.length < STRETCHES_AHEAD) {
        const stretch = await nextStretch(walk, sources.blobService, signal);
        ended = stretch.steps.length === 0;
        if (!ended) window.push(stretch);
      }
      const next = window.shift();
      if (next === undefined) return;
      using read = await next.read;
      const contents = read.contents.values();
      for (const step of next.steps) {
        yield { step, contents: isSmallFile(step) ? contents.next().value : undefined };
      }
    }
  } finally {
    abandon.abort(new Error("Nobody reads the NAR any more"));
    await Promise.allSettled(window.map(({ read }) => read));
  }
}

/** Walks on, and begins to read the small files that are met. Without steps at the end of the walk. */
async function nextStretch(
  walk: AsyncGenerator<Step, undefined>,
  blobService: BlobService,
  signal: AbortSignal,
): Promise<Stretch> {
  const steps: Step[] = [];
  const blobs: { digest: B3Digest; size: number }[] = [];
  let bytes = 0;
  while (steps.length < STEPS_PER_STRETCH && bytes < BYTES_PER_STRETCH) {
    const { value: step } = await walk.next();
    if (step === undefined) break;
    steps.push(step);
    if (!isSmallFile(step)) continue;
    const size = Number(step.file.size);
    blobs.push({ digest: step.file.digest, size });
    bytes += size;
  }
  const read = blobService.readMany(blobs, { signal });
  read.catch(() => undefined); // told when their turn comes
  return { steps, read };
}

function isSmallFile(step: Step): step is FileStep {
  return step.type === "file" && step.file.size <= SMALL_FILE;
}

async function* walkNodes(
  root: Node,
  directoryService: DirectoryService,
  signal: AbortSignal,
): AsyncGenerator<Step, undefined> {
  const stack: { place: Place | undefined; entries: Iterator<DirectoryEntry, undefined> }[] = [];
  let next: { place: Place | undefined; node: Node } | undefined = { place: undefined, node: root };
  while (next !== undefined || stack.length > 0) {
    if (next === undefined) {
      stack.pop();
      yield { type: "leave" };
    } else if (next.node.type === "directory") {
      const { place, node } = next;
      const directory = await directoryService.get(node.digest, { signal });
      if (directory === undefined) {
        throw refusal("not_found", `directory ${node.digest}`, place, "is missing");
      }
      yield { type: "enter", place };
      stack.push({ place, entries: directory.entries.values() });
    } else if (next.node.type === "file") {
      yield { type: "file", place: next.place, file: next.node };
    } else {
      yield { type: "symlink", place: next.place, target: next.node.target };
    }
    const folder = stack.at(-1);
    const entry = folder?.entries.next().value;
    next = entry && { place: { name: entry.name, parent: folder?.place }, node: entry.node };
  }
}

async function* readFile(
  { file: { digest, size }, place }: FileStep,
  { blobService }: NarSources,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const stream = await blobService.read(digest, { signal });
  if (stream === undefined) throw refusal("not_found", `blob ${digest}`, place, "is missing");
  let found = 0n;
  for await (const data of stream) {
    found += BigInt(data.length);
    if (found > size) break;
    yield data;
  }
  if (found !== size) {
    const length = found > size ? `more than ${size}` : `only ${found}`;
    throw refusal("data_loss", `blob ${digest}`, place, `has ${length} bytes, expected ${size}`);
  }
}

function refusal(
  code: "not_found" | "data_loss",
  what: string,
  place: Place | undefined,
  reason: string,
): StoreError {
  const names: string[] = [];
  for (let at = place; at !== undefined; at = at.parent) names.unshift(quoteBytes(at.name));
  const where = names.length > 0 ? ` of ${names.join("/")}` : "";
  return new StoreError(code, `Cannot render NAR: ${what}${where} ${reason}`);
}
