import {
  type DirectoryEntry,
  type FileNode,
  type Node,
  type PathComponent,
  quoteBytes,
  type SymlinkTarget,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { entrySize, leafSize, type NarSizes } from "./sizes.ts";
import type { Tree } from "./tree-reader.ts";
import { CLOSE, DIRECTORY, MAGIC } from "./wire.ts";
import type { NarPlace } from "./writer.ts";

/** Files of up to this many bytes are small. */
const SMALL_FILE = 256 * 1024;

/** When a batch of steps ends: after so many, or so many bytes of small files. */
const STEPS_PER_BATCH = 256;
export const BYTES_PER_BATCH: number = 512 * 1024;

/** A part of a NAR. */
export interface NarPart {
  readonly sizes: NarSizes;
  /** Offset of the first byte, and of the first byte after the part. */
  readonly start: number;
  readonly end: number;
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

export interface FileStep {
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

/** Whether a step is a file that is read as a whole. */
export function isSmallFile(step: Step): step is FileStep {
  return step.type === "file" && step.file.size <= SMALL_FILE;
}

/**
 * Walks a tree, or the part of it that a part of its NAR is rendered from. The steps come in batches: a promise for each of them
 * would take longer than the walk.
 *
 * @throws StoreError `not_found` for a directory that is missing
 */
export async function* walkSteps(
  root: Node,
  tree: Tree,
  part?: NarPart,
): AsyncGenerator<readonly Step[], undefined> {
  const stack: { place: Place | undefined; entries: Iterator<DirectoryEntry, undefined> }[] = [];
  const cursor = new PartCursor(part);
  let batch = new StepBatch();
  let next: { place: Place | undefined; node: Node } | undefined = { place: undefined, node: root };
  while ((next !== undefined || stack.length > 0) && !cursor.isBehind) {
    const depth = stack.length;
    if (next === undefined) {
      stack.pop();
      const bytes = CLOSE.length * (depth > 1 ? 2 : 1);
      if (!cursor.skips(bytes)) batch.push(cursor.take(bytes, depth), { type: "leave" });
    } else if (!cursor.skipsNode(next.node, next.place)) {
      const { place, node } = next;
      if (node.type === "directory") {
        const directory = await tree.get(node.digest);
        if (directory === undefined) {
          throw refusal("not_found", `directory ${node.digest}`, place, "is missing");
        }
        const bytes = DIRECTORY.length + (place ? entrySize(place.name.length) - CLOSE.length : 0);
        if (!cursor.skips(bytes)) batch.push(cursor.take(bytes, depth), { type: "enter", place });
        stack.push({ place, entries: directory.encodedEntries[Symbol.iterator]() });
      } else {
        const bytes = leafSize(node) + (place ? entrySize(place.name.length) : 0);
        const step: Step =
          node.type === "file"
            ? { type: "file", place, file: node }
            : { type: "symlink", place, target: node.target };
        batch.push(cursor.take(bytes, depth), step);
      }
    }
    if (batch.isFull) {
      yield batch.steps;
      batch = new StepBatch();
    }
    const folder = stack.at(-1);
    const entry = folder?.entries.next().value;
    next = entry && { place: { name: entry.name, parent: folder?.place }, node: entry.node };
  }
  if (batch.steps.length > 0) yield batch.steps;
}

/** Consecutive steps of a walk. */
class StepBatch {
  readonly steps: Step[] = [];
  #bytes = 0;

  /** @param begin is added before the step, if there is one */
  push(begin: Step | undefined, step: Step): void {
    if (begin !== undefined) this.steps.push(begin);
    this.steps.push(step);
    if (isSmallFile(step)) this.#bytes += Number(step.file.size);
  }

  get isFull(): boolean {
    return this.steps.length >= STEPS_PER_BATCH || this.#bytes >= BYTES_PER_BATCH;
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

  /** Advances by bytes of the part. Returns `begin` before the first of them. */
  take(bytes: number, depth: number): Step | undefined {
    const begin = this.#isBefore
      ? ({ type: "begin", offset: this.#offset, depth } as const)
      : undefined;
    this.#isBefore = false;
    this.#offset += bytes;
    return begin;
  }
}

/** The error for a node that cannot be rendered. */
export function refusal(
  code: "not_found" | "data_loss",
  what: string,
  place: Place | undefined,
  reason: string,
): StoreError {
  const where = place === undefined ? "" : ` of ${showPlace(place)}`;
  return new StoreError(code, `Cannot render NAR: ${what}${where} ${reason}`);
}
