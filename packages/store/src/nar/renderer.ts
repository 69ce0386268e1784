import {
  type AbortOptions,
  type B3Digest,
  type BlobService,
  type DirectoryEntry,
  type DirectoryService,
  type FileNode,
  freeMemory,
  type Node,
  type PathComponent,
  quoteBytes,
  type SymlinkTarget,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { entrySize, leafSize, type NarSizes } from "./sizes.ts";
import { TreeReader } from "./tree-reader.ts";
import { CLOSE, DIRECTORY, MAGIC } from "./wire.ts";
import { type NarPlace, type NarSink, NarWriter } from "./writer.ts";

/** Where the contents of a NAR come from. */
export interface NarSources {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
}

/** Files of up to this many bytes are read ahead, in batches. */
const SMALL_FILE = 256 * 1024;

/** Size of a batch: steps of the walk, and bytes of the small files among them. */
const STEPS_PER_STRETCH = 256;
const BYTES_PER_STRETCH = 512 * 1024;

/** How many bytes are read ahead at most, unless the caller says otherwise. */
const READ_AHEAD = 6 * BYTES_PER_STRETCH;

/** Options of {@link renderNar}. */
export interface RenderOptions extends AbortOptions {
  /**
   * Returns how many bytes of contents may be held, read ahead of who iterates. It is asked again and again: a server
   * bounds what all of its NARs hold together. A batch of small files, up to 768 KiB, is held in any case. Default: 3 MiB.
   */
  readonly readAhead?: () => number;
}

/** A part of a NAR. */
export interface NarPart {
  readonly sizes: NarSizes;
  /** Offset of the first byte, and of the first byte after the part. */
  readonly start: number;
  readonly end: number;
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
  for await (const { step, contents } of stepsAhead(root, sources, { part, signal, readAhead })) {
    signal?.throwIfAborted();
    if (step.type === "begin") writer = new NarWriter(sink, step);
    else writeStep(writer, step);
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
  writer.finish();
  yield* ready;
}

/** The path of a node below the root; `undefined` for the root. */
export interface Place {
  readonly name: PathComponent;
  readonly parent: Place | undefined;
}

/** Shows a place in a message, as names with slashes between them. */
export function showPlace(place: Place): string {
  const names: string[] = [];
  for (let at: Place | undefined = place; at !== undefined; at = at.parent) {
    names.unshift(quoteBytes(at.name));
  }
  return names.join("/");
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

interface FileStep {
  readonly type: "file";
  readonly place: Place | undefined;
  readonly file: FileNode;
}

/**
 * One step of the walk, in canonical order. A directory takes two: `enter` and `leave`. If the walk begins in the
 * middle of the NAR, `begin` comes first, with the place of the next step.
 */
export type Step =
  | FileStep
  | ({ readonly type: "begin" } & NarPlace)
  | { readonly type: "enter"; readonly place: Place | undefined }
  | { readonly type: "leave" }
  | {
      readonly type: "symlink";
      readonly place: Place | undefined;
      readonly target: SymlinkTarget;
    };

/** A step, with the contents of a file that was read ahead. */
interface StepAhead {
  readonly step: Step;
  /** `undefined` if the step is not a file, or the file is large or could not be read: reading it again tells why. */
  readonly contents: Uint8Array | undefined;
}

/** A batch: consecutive steps, whose small files are read together. */
interface Stretch {
  readonly steps: readonly Step[];
  /** The contents of the small files among the steps, in order. */
  readonly read: Promise<readonly (Uint8Array | undefined)[]>;
}

/** Walks a tree as {@link walkNodes} does, and reads small files ahead. */
export async function* stepsAhead(
  root: Node,
  sources: PartSources,
  options: Required<Pick<RenderOptions, "readAhead">> &
    RenderOptions & { part?: NarPart | undefined },
): AsyncGenerator<StepAhead> {
  const { part, signal: callerSignal, readAhead } = options;
  const abandon = new AbortController();
  const signal = callerSignal ? AbortSignal.any([callerSignal, abandon.signal]) : abandon.signal;
  const walk = walkNodes(root, sources.tree, part);
  const window: Stretch[] = [];
  try {
    for (let ended = false; ; ) {
      while (!ended && (window.length === 0 || isWithin(readAhead(), window.length))) {
        const stretch = await nextStretch(walk, sources.blobService, signal);
        ended = stretch.steps.length === 0;
        if (!ended) window.push(stretch);
      }
      const next = window.shift();
      if (next === undefined) return;
      const files = await next.read;
      const contents = files.values();
      for (const step of next.steps) {
        yield { step, contents: isSmallFile(step) ? contents.next().value : undefined };
      }
      freeMemory(files.filter((file) => file !== undefined));
    }
  } finally {
    abandon.abort(new Error("Nobody reads the NAR any more"));
    await Promise.allSettled(window.map(({ read }) => read));
  }
}

/** Whether another batch may be read ahead of so many. */
function isWithin(bytes: number, batches: number): boolean {
  return (batches + 1) * BYTES_PER_STRETCH <= bytes;
}

/** Takes the next steps of the walk, and starts to read their small files. No steps are left at the end of the walk. */
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
  read.catch(() => undefined); // handled when the batch is rendered
  return { steps, read };
}

function isSmallFile(step: Step): step is FileStep {
  return step.type === "file" && step.file.size <= SMALL_FILE;
}

/** Walks a tree, or the part of it that a part of its NAR is rendered from. */
export async function* walkNodes(
  root: Node,
  tree: TreeReader,
  part?: NarPart,
): AsyncGenerator<Step, undefined> {
  const stack: { place: Place | undefined; entries: Iterator<DirectoryEntry, undefined> }[] = [];
  const cursor = new PartCursor(part);
  let next: { place: Place | undefined; node: Node } | undefined = { place: undefined, node: root };
  while (next !== undefined || stack.length > 0) {
    if (cursor.isBehind) return;
    const depth = stack.length;
    if (next === undefined) {
      stack.pop();
      const bytes = CLOSE.length * (depth > 1 ? 2 : 1);
      if (!cursor.skips(bytes)) {
        yield* cursor.takes(bytes, depth);
        yield { type: "leave" };
      }
    } else if (!cursor.skipsNode(next.node, next.place)) {
      const { place, node } = next;
      if (node.type === "directory") {
        const directory = await tree.get(node.digest);
        if (directory === undefined) {
          throw refusal("not_found", `directory ${node.digest}`, place, "is missing");
        }
        const bytes = DIRECTORY.length + (place ? entrySize(place.name.length) - CLOSE.length : 0);
        if (!cursor.skips(bytes)) {
          yield* cursor.takes(bytes, depth);
          yield { type: "enter", place };
        }
        stack.push({ place, entries: directory.entries.values() });
      } else {
        yield* cursor.takes(leafSize(node) + (place ? entrySize(place.name.length) : 0), depth);
        if (node.type === "file") yield { type: "file", place, file: node };
        else yield { type: "symlink", place, target: node.target };
      }
    }
    const folder = stack.at(-1);
    const entry = folder?.entries.next().value;
    next = entry && { place: { name: entry.name, parent: folder?.place }, node: entry.node };
  }
}

/** Tracks the offset of a walk in the NAR, of which a part is rendered. */
class PartCursor {
  readonly #part: NarPart | undefined;
  #offset = MAGIC.length;
  /** Whether the offset is still before the part. */
  #isBefore: boolean;

  constructor(part: NarPart | undefined) {
    this.#part = part;
    this.#isBefore = part !== undefined && part.start >= MAGIC.length;
  }

  /** Whether the part has ended. */
  get isBehind(): boolean {
    return this.#part !== undefined && this.#offset >= this.#part.end;
  }

  /** Advances by so many bytes if all of them are before the part; returns whether it did. */
  skips(bytes: number): boolean {
    if (!this.#isBefore || this.#offset + bytes > this.#part!.start) return false;
    this.#offset += bytes;
    return true;
  }

  /** Advances past a node and its entry if all of it is before the part; returns whether it did. */
  skipsNode(node: Node, place: Place | undefined): boolean {
    if (!this.#isBefore) return false;
    return this.skips(this.#part!.sizes.node(node) + (place ? entrySize(place.name.length) : 0));
  }

  /** Advances by bytes of the part. Yields `begin` before the first of them. */
  *takes(bytes: number, depth: number): Generator<Step> {
    if (this.#isBefore) yield { type: "begin", offset: this.#offset, depth };
    this.#isBefore = false;
    this.#offset += bytes;
  }
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

function refusal(
  code: "not_found" | "data_loss",
  what: string,
  place: Place | undefined,
  reason: string,
): StoreError {
  const where = place === undefined ? "" : ` of ${showPlace(place)}`;
  return new StoreError(code, `Cannot render NAR: ${what}${where} ${reason}`);
}
