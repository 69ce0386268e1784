import { join } from "node:path";
import { type AbortOptions, type Node, refusalOf } from "@tvix/castore";
import { z } from "zod";
import type {
  ContentServices,
  CopyContentsOptions,
  PathMetadata,
  StorePathSource,
} from "../copy/store-path-source.ts";
import { inContext, StoreError } from "../errors.ts";
import { encodeNixbase32 } from "../nix/nixbase32.ts";
import { STORE_DIR } from "../nix/store-path.ts";
import { importContents } from "./import-contents.ts";
import { parsePathMetadata } from "./path-metadata.ts";

/** A store path of a graph. Nix has more keys, which do not matter. */
const GRAPH_PATH = z.object({
  path: z.string(),
  narHash: z.string(),
  narSize: z.int().positive(),
  references: z.array(z.string()),
  deriver: z.string().nullish(),
  signatures: z.array(z.string()).nullish(),
  ca: z.string().nullish(),
});

/** The attributes of a derivation, as far as they are read. */
const GRAPH = z.object({ closure: z.array(GRAPH_PATH) });

/**
 * The store paths of a reference graph: the `closure` in the attributes of a derivation with `__structuredAttrs` and
 * `exportReferencesGraph`. Contents come from the file system, everything else from the graph.
 * https://nix.dev/manual/nix/latest/language/advanced-attributes#adv-attr-exportReferencesGraph
 */
export class ReferenceGraph implements StorePathSource {
  readonly name: string;
  /** By hash part. */
  readonly #paths = new Map<string, PathMetadata>();

  /**
   * Parses the JSON of the attributes.
   *
   * @param name what they are, for messages
   * @throws StoreError `invalid_argument` for anything else, naming what is wrong
   */
  constructor(json: string, name: string) {
    this.name = name;
    for (const path of parseGraph(json, name)) {
      this.#paths.set(encodeNixbase32(path.storePath.hashPart), path);
    }
  }

  /** The hash parts of all its store paths. */
  get hashParts(): Uint8Array[] {
    return Array.from(this.#paths.values(), ({ storePath }) => storePath.hashPart);
  }

  async getMany(
    hashParts: readonly Uint8Array[],
    { signal }: AbortOptions = {},
  ): Promise<readonly (PathMetadata | undefined)[]> {
    signal?.throwIfAborted();
    return hashParts.map((hashPart) => this.#paths.get(encodeNixbase32(hashPart)));
  }

  async copyContents(
    path: PathMetadata,
    to: ContentServices,
    options?: CopyContentsOptions,
  ): Promise<Node> {
    return await importContents(join(STORE_DIR, `${path.storePath}`), path, to, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

function parseGraph(json: string, name: string): PathMetadata[] {
  const context = `Cannot read ${name}`;
  let attributes: unknown;
  try {
    attributes = JSON.parse(json);
  } catch (error) {
    const message = `${context}: it is no JSON: ${(error as Error).message}`;
    throw new StoreError("invalid_argument", message, { cause: error });
  }
  const parsed = GRAPH.safeParse(attributes);
  if (!parsed.success) {
    const { reason } = refusalOf(parsed.error, GRAPH, attributes);
    throw new StoreError("invalid_argument", `${context}: ${reason}`);
  }
  return parsed.data.closure.map((path, i) =>
    inContext(`${context}: closure.${i}`, () => {
      const { narSize, signatures } = path;
      return parsePathMetadata({
        ...path,
        narSize: BigInt(narSize),
        signatures: signatures ?? [],
      });
    }),
  );
}
