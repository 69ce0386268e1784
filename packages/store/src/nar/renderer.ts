import {
  type AbortOptions,
  type BlobService,
  collectBytes,
  type DirectoryEntry,
  type DirectoryService,
  type FileNode,
  type Node,
  type PathComponent,
  type SymlinkTarget,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { NarWriter } from "./writer.ts";

/** Where the contents of a NAR come from. */
export interface NarSources {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
}

/** A file of up to this many bytes is read ahead of its turn. */
const SMALL_FILE = 256 * 1024;

/** How much is read ahead: nodes, and bytes of files among them. */
const NODES_AHEAD = 64;
const BYTES_AHEAD = 4 * 1024 * 1024;

/**
 * Renders the NAR of a tree, in pieces of up to a few hundred KiB. Memory does not depend on the size
 * of the tree, but on its depth and the widest directory.
 *
 * @throws StoreError `not_found` if a directory or blob is missing, `data_loss` if a blob has another
 *   size than its node states; whatever the services throw
 */
export async function* renderNar(
  root: Node,
  sources: NarSources,
  options?: AbortOptions,
): AsyncGenerator<Uint8Array> {
  const stop = new AbortController();
  const signal = options?.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  const ready: Uint8Array[] = [];
  const writer = new NarWriter((bytes) => ready.push(bytes));
  try {
    for await (const { step, contents } of readAhead(root, sources, signal)) {
      if (step.name !== undefined && step.type !== "leave") writer.entry(step.name);
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
          for await (const data of contents ?? readFile(step.file, sources, signal)) {
            if (data.length > 0) writer.contents(data);
            yield* ready.splice(0);
          }
      }
      yield* ready.splice(0);
    }
    writer.finish();
    yield* ready;
  } finally {
    stop.abort(new Error("Nobody reads the NAR any more"));
  }
}

/** One thing of the tree, in canonical order. Directories come twice: at their beginning and end. */
type Step = { readonly name: PathComponent | undefined } & (
  | { readonly type: "enter" | "leave" }
  | { readonly type: "file"; readonly file: FileNode }
  | { readonly type: "symlink"; readonly target: SymlinkTarget }
);

/** A step, and the contents of a small file that were asked for ahead of its turn. */
interface StepAhead {
  readonly step: Step;
  readonly contents?: AsyncIterable<Uint8Array>;
}

async function* readAhead(
  root: Node,
  sources: NarSources,
  signal: AbortSignal,
): AsyncGenerator<StepAhead> {
  const steps = walkNodes(root, sources.directoryService, signal);
  const window: StepAhead[] = [];
  let bytes = 0;
  for (let ended = false; ; ) {
    while (!ended && window.length < NODES_AHEAD && bytes < BYTES_AHEAD) {
      const { value: step } = await steps.next();
      if (step) {
        const contents = readSmallFile(step, sources, signal);
        if (contents !== undefined) bytes += sizeOf(step);
        window.push({ step, contents });
      } else {
        ended = true;
      }
    }
    const next = window.shift();
    if (next === undefined) return;
    if (next.contents !== undefined) bytes -= sizeOf(next.step);
    yield next;
  }
}

const sizeOf = (step: Step) => (step.type === "file" ? Number(step.file.size) : 0);

function readSmallFile(
  step: Step,
  sources: NarSources,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> | undefined {
  if (step.type !== "file" || step.file.size > SMALL_FILE) return undefined;
  const contents = collectBytes(readFile(step.file, sources, signal));
  contents.catch(() => undefined); // whoever takes the step is told
  return (async function* () {
    yield await contents;
  })();
}

async function* walkNodes(
  root: Node,
  directoryService: DirectoryService,
  signal: AbortSignal,
): AsyncGenerator<Step> {
  const stack: { name: PathComponent | undefined; entries: Iterator<DirectoryEntry> }[] = [];
  let next: { name: PathComponent | undefined; node: Node } | undefined = {
    name: undefined,
    node: root,
  };
  while (next !== undefined || stack.length > 0) {
    if (next === undefined) {
      yield { type: "leave", name: stack.pop()!.name };
    } else if (next.node.type === "directory") {
      const directory = await directoryService.get(next.node.digest, { signal });
      if (directory === undefined) {
        throw new StoreError(
          "not_found",
          `Cannot render NAR: directory ${next.node.digest} is missing`,
        );
      }
      yield { type: "enter", name: next.name };
      stack.push({ name: next.name, entries: directory.entries.values() });
    } else if (next.node.type === "file") {
      yield { type: "file", name: next.name, file: next.node };
    } else {
      yield { type: "symlink", name: next.name, target: next.node.target };
    }
    next = stack.at(-1)?.entries.next().value;
  }
}

async function* readFile(
  { digest, size }: FileNode,
  { blobService }: NarSources,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const stream = await blobService.read(digest, { signal });
  if (stream === undefined) {
    throw new StoreError("not_found", `Cannot render NAR: blob ${digest} is missing`);
  }
  let found = 0n;
  for await (const data of stream) {
    found += BigInt(data.length);
    if (found > size) break;
    yield data;
  }
  if (found !== size) {
    throw new StoreError(
      "data_loss",
      `Cannot render NAR: blob ${digest} has ${found > size ? "more than" : "only"} ` +
        `${found > size ? size : found} bytes, expected ${size}`,
    );
  }
}
