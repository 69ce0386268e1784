import { createHash, type Hash } from "node:crypto";
import {
  type AbortOptions,
  type BlobService,
  ContentsStore,
  type DirectoryService,
  equalBytes,
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
import { readNar } from "./reader.ts";

/** Options of {@link ingestNar}. */
export interface IngestNarOptions extends AbortOptions {
  /** Size and digest that the NAR has to have. Default: any. */
  expected?: CalculatedNar;
  /** A content address that the NAR, or the only file in it, has to have. Default: any. */
  expectedCa?: ContentAddress | undefined;
  /** Refuses a NAR by throwing, once all of it was read and before any directory of it is visible. Default: none is. */
  check?: ((nar: CalculatedNar) => void) | undefined;
}

/** Root node, size and digest of a NAR. */
export interface IngestedNar extends CalculatedNar {
  /** The root node. */
  readonly node: Node;
}

/**
 * Stores the contents of a NAR in one pass. Holds a few megabytes of it at most.
 *
 * @returns root node, size and digest of the NAR, once everything is durable
 * @throws StoreError `invalid_argument` for a stream that is not a NAR, or not the expected one; whatever
 *   `check`, the stream and the services throw. None of its directories is visible then, blobs may be
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

/** A NAR that is being stored. */
class Ingestion {
  /** Size and hash of the NAR, once it was read to its end. */
  found: CalculatedNar | undefined;
  readonly #blobService: BlobService;
  readonly #options: IngestNarOptions;
  readonly #nar = new NarHasher();
  readonly #ca: Hash | undefined;

  constructor(blobService: BlobService, options: IngestNarOptions) {
    this.#blobService = blobService;
    this.#options = options;
    const { expectedCa } = options;
    this.#ca = expectedCa && createHash(expectedCa.hash.algorithm);
  }

  async *entries(stream: AsyncIterable<Uint8Array>): AsyncGenerator<IngestEntry> {
    const path: PathComponent[] = [];
    const isEntry: boolean[] = [];
    /** Ends a node, and the entry that it belongs to unless it is the root. */
    const ended = () => {
      if (isEntry.length > 0) path.pop();
    };
    await using files = new ContentsStore(this.#blobService, { signal: this.#options.signal });
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
          const contents = this.#watchedContents(event.contents, path.length === 0);
          const { size, executable } = event;
          const node = Promise.withResolvers<Node>();
          node.promise.catch(() => undefined); // the consumer of the entry handles it
          await files.add(
            { size, contents },
            {
              resolve: (digest) =>
                node.resolve({ type: "file", digest, size: BigInt(size), executable }),
              reject: node.reject,
            },
          );
          yield { path: [...path], node: node.promise };
          ended();
        }
      }
    }
    await files.finish();
    this.#check();
  }

  async *#watched(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const isNar = this.#options.expectedCa?.kind === "nar";
    for await (const data of stream) {
      this.#nar.update(data);
      if (isNar) this.#ca?.update(data);
      yield data;
    }
  }

  /** Passes the contents of a file on, and hashes them if the expected content address covers them. */
  #watchedContents(
    contents: AsyncIterable<Uint8Array>,
    isRoot: boolean,
  ): AsyncIterable<Uint8Array> {
    const ca = this.#ca;
    if (!isRoot || ca === undefined || this.#options.expectedCa?.kind === "nar") return contents;
    return (async function* () {
      for await (const data of contents) {
        ca.update(data);
        yield data;
      }
    })();
  }

  #check(): void {
    const { expected, expectedCa, check } = this.#options;
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
    check?.(found);
    this.found = found;
  }
}

function refusal(reason: string): StoreError {
  return new StoreError("invalid_argument", `Cannot store a NAR: ${reason}`);
}
