import { createHash, type Hash } from "node:crypto";
import {
  type AbortOptions,
  type B3Digest,
  type BlobService,
  type DirectoryService,
  equalBytes,
  type FileNode,
  type IngestEntry,
  ingestEntries,
  type Node,
  type PathComponent,
} from "@tvix/castore";
import { StoreError } from "../errors.ts";
import { type ContentAddress, formatContentAddress } from "../nix/content-address.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import type { CalculatedNar } from "./nar-calculation-service.ts";
import { NarHasher } from "./nar-hasher.ts";
import { type NarEvent, readNar } from "./reader.ts";

/** A file of up to this many bytes goes to the store together with others. */
const SMALL_FILE = 128 * 1024;

/** How many bytes, and how many files, go together. */
const BATCH_BYTES = 1024 * 1024;
const BATCH_FILES = 512;

/** How many batches and large files are on their way to the store while the NAR is read on. */
const MAX_IN_FLIGHT = 8;

/** Options of {@link ingestNar}. */
export interface IngestNarOptions extends AbortOptions {
  /** What the NAR has to be. Default: anything. */
  expected?: CalculatedNar;
  /** What it has to be by another hash: of the NAR, or of the only file in it. Default: anything. */
  expectedCa?: ContentAddress | undefined;
}

/** What was found in a NAR. */
export interface IngestedNar extends CalculatedNar {
  /** The contents. */
  readonly node: Node;
}

/**
 * Stores the contents of a NAR, which is read once, and of which no more than some megabytes are held.
 *
 * @returns the root node, and size and hash of the NAR, once everything is durable
 * @throws StoreError `invalid_argument` for what is no NAR, or not the expected one: nothing of its directories is
 *   visible then, blobs may be; whatever the stream and the services throw
 */
export async function ingestNar(
  stream: AsyncIterable<Uint8Array>,
  services: { blobService: BlobService; directoryService: DirectoryService },
  options: IngestNarOptions = {},
): Promise<IngestedNar> {
  options.signal?.throwIfAborted();
  const ingestion = new Ingestion(services.blobService, options);
  const entries = ingestion.entries(stream);
  const node = await ingestEntries(services.directoryService, entries, { signal: options.signal });
  return { node, ...ingestion.found! };
}

/** Files that go to the store together. */
interface Batch {
  readonly files: Uint8Array[];
  bytes: number;
  readonly stored: PromiseWithResolvers<readonly B3Digest[]>;
}

/** A NAR that is being stored. */
class Ingestion {
  /** Size and hash of the NAR, when it was read to its end. */
  found: CalculatedNar | undefined;
  readonly #blobService: BlobService;
  readonly #options: IngestNarOptions;
  readonly #nar = new NarHasher();
  readonly #ca: Hash | undefined;
  readonly #inFlight = new Set<Promise<unknown>>();
  #batch: Batch | undefined;

  constructor(blobService: BlobService, options: IngestNarOptions) {
    this.#blobService = blobService;
    this.#options = options;
    const { expectedCa } = options;
    this.#ca = expectedCa && createHash(expectedCa.hash.algorithm);
  }

  async *entries(stream: AsyncIterable<Uint8Array>): AsyncGenerator<IngestEntry> {
    const path: PathComponent[] = [];
    const isEntry: boolean[] = [];
    /** Ends a node, which is that of an entry unless it is the root. */
    const ended = () => {
      if (isEntry.length > 0) path.pop();
    };
    try {
      for await (const event of readNar(this.#watched(stream))) {
        this.#options.signal?.throwIfAborted();
        switch (event.type) {
          case "directory":
            isEntry.push(true);
            break;
          case "entry":
            path.push(event.name);
            break;
          case "end":
            isEntry.pop();
            yield { path: [...path], node: "directory" };
            ended();
            break;
          case "symlink":
            yield { path: [...path], node: { type: "symlink", target: event.target } };
            ended();
            break;
          case "file": {
            const digest = await this.#file(event, path.length === 0);
            const { executable, size } = event;
            const node = fileNode(digest(), size, executable);
            node.catch(() => undefined); // told to whoever takes the entry
            yield { path: [...path], node };
            ended();
          }
        }
      }
      this.#flush();
      this.#check();
    } finally {
      this.#batch?.stored.reject(new StoreError("aborted", "Cannot store a NAR: it ended early"));
      await Promise.allSettled(this.#inFlight);
    }
  }

  async *#watched(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const isNar = this.#options.expectedCa?.kind === "nar";
    for await (const data of stream) {
      this.#nar.update(data);
      if (isNar) this.#ca?.update(data);
      yield data;
    }
  }

  /** Stores the contents of a file. Gives what gives its digest: it may be long until that is known. */
  async #file(
    { size, contents }: Extract<NarEvent, { type: "file" }>,
    isRoot: boolean,
  ): Promise<() => Promise<B3Digest>> {
    const ca = isRoot && this.#options.expectedCa?.kind !== "nar" ? this.#ca : undefined;
    if (size > SMALL_FILE) return await this.#large(contents, ca);
    const data = new Uint8Array(size);
    let at = 0;
    for await (const part of contents) {
      data.set(part, at);
      at += part.length;
    }
    ca?.update(data);
    return await this.#small(data);
  }

  /** Adds a file to those that go to the store together. */
  async #small(data: Uint8Array): Promise<() => Promise<B3Digest>> {
    this.#batch ??= { files: [], bytes: 0, stored: Promise.withResolvers() };
    const { files, stored } = this.#batch;
    stored.promise.catch(() => undefined); // told to whoever awaits a digest
    const i = files.push(data) - 1;
    this.#batch.bytes += data.length;
    if (this.#batch.bytes >= BATCH_BYTES || files.length === BATCH_FILES) {
      this.#flush();
      await this.#room();
    }
    return async () => (await stored.promise)[i]!;
  }

  #flush(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    this.#batch = undefined;
    const storing = this.#blobService.putMany(batch.files, { signal: this.#options.signal });
    this.#track(storing.then(batch.stored.resolve, batch.stored.reject));
  }

  async #large(
    contents: AsyncIterable<Uint8Array>,
    ca: Hash | undefined,
  ): Promise<() => Promise<B3Digest>> {
    await this.#room();
    const writer = this.#blobService.openWriter({ signal: this.#options.signal });
    try {
      for await (const data of contents) {
        ca?.update(data);
        await writer.write(data);
      }
    } catch (error) {
      await writer[Symbol.asyncDispose]();
      throw error;
    }
    // Not awaited: the NAR is read on while it becomes durable.
    const closed = writer.close();
    this.#track(closed.finally(() => writer[Symbol.asyncDispose]()));
    return () => closed;
  }

  /** Waits until less is on its way. */
  async #room(): Promise<void> {
    while (this.#inFlight.size >= MAX_IN_FLIGHT) await Promise.race(this.#inFlight);
  }

  #track(work: Promise<unknown>): void {
    const settled: Promise<unknown> = work
      .catch(() => undefined) // told to whoever awaits a digest
      .finally(() => this.#inFlight.delete(settled));
    this.#inFlight.add(settled);
  }

  #check(): void {
    const { expected, expectedCa } = this.#options;
    const found = this.#nar.digest();
    if (expected && expected.narSize !== found.narSize) {
      throw refusal(`expected ${expected.narSize} bytes, found ${found.narSize}`);
    }
    if (expected && !equalBytes(expected.narSha256, found.narSha256)) {
      const [wanted, got] = [expected, found].map(({ narSha256 }) => encodeNixbase32(narSha256));
      throw refusal(`expected hash sha256:${wanted}, found sha256:${got}`);
    }
    if (expectedCa !== undefined) {
      const digest = new Uint8Array(this.#ca!.digest());
      const { algorithm } = expectedCa.hash;
      const ca = { ...expectedCa, hash: { algorithm, digest } } as ContentAddress;
      if (!equalBytes(digest, expectedCa.hash.digest)) {
        const wanted = formatContentAddress(expectedCa);
        throw refusal(`expected content address ${wanted}, found ${formatContentAddress(ca)}`);
      }
    }
    this.found = found;
  }
}

async function fileNode(
  stored: Promise<B3Digest>,
  size: number,
  executable: boolean,
): Promise<FileNode> {
  return { type: "file", digest: await stored, size: BigInt(size), executable };
}

function refusal(reason: string): StoreError {
  return new StoreError("invalid_argument", `Cannot store a NAR: ${reason}`);
}
