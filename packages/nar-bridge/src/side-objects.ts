import { fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type AbortOptions,
  anonymousNodeFromProto,
  CastoreError,
  COMPRESSIONS,
  type Compression,
  collectAtMost,
  type Node,
  nodeToProto,
  type ObjectStore,
} from "@tvix/castore";
import { NodeSchema } from "@tvix/proto/castore";
import { z } from "zod";

/** A NAR that a client has pushed. */
export interface PushedNar {
  /** The root node of its contents, which are stored. */
  readonly node: Node;
  /** Length of the NAR in bytes, before compression. */
  readonly narSize: bigint;
  /** SHA-256 digest of the NAR, 32 bytes. */
  readonly narSha256: Uint8Array;
  /** The compression that it was pushed in, and is served in. */
  readonly compression: Compression;
}

/** Longest object that is read as a whole, in bytes. */
const MAX_RECORD_BYTES = 64 * 1024;

const RECORD = z.strictObject({
  node: z.base64url(),
  narSize: z.string().regex(/^[1-9][0-9]{0,19}$/),
  narSha256: z.string().regex(/^[0-9a-f]{64}$/),
  compression: z.enum(COMPRESSIONS),
});

/**
 * What belongs to the HTTP cache and is neither blob, directory nor PathInfo, in an object store that many processes may
 * share. This module owns its keys and encodings: `nar/<file name>` is the JSON of a NAR that was pushed under this name.
 */
export class SideObjects {
  readonly #objects: ObjectStore;

  constructor(objects: ObjectStore) {
    this.#objects = objects;
  }

  /**
   * Returns the NAR that was pushed under a file name, such as `<hash>.nar.xz`; `undefined` if there is none.
   *
   * @throws CastoreError `data_loss` for an object that is no record of a NAR
   */
  async getNar(fileName: string, options?: AbortOptions): Promise<PushedNar | undefined> {
    const key = `nar/${fileName}`;
    const contents = await this.#objects.get(key, options);
    if (contents === undefined) return undefined;
    const bytes = await collectAtMost(contents, MAX_RECORD_BYTES);
    try {
      if (bytes === undefined) throw new Error(`expected ${MAX_RECORD_BYTES} bytes at most`);
      const record = RECORD.parse(JSON.parse(Buffer.from(bytes).toString()));
      const encoded = Buffer.from(record.node, "base64url");
      return {
        node: anonymousNodeFromProto(fromBinary(NodeSchema, encoded)),
        narSize: BigInt(record.narSize),
        narSha256: Buffer.from(record.narSha256, "hex"),
        compression: record.compression,
      };
    } catch (cause) {
      const where = `"${key}" of ${this.#objects.name}`;
      throw new CastoreError("data_loss", `Cannot use ${where}: it is no record of a NAR`, {
        cause,
      });
    }
  }

  /** Stores the record of a NAR that was pushed under a file name. */
  async putNar(fileName: string, nar: PushedNar, options?: AbortOptions): Promise<void> {
    const { node, narSize, narSha256, compression } = nar;
    const record = {
      node: Buffer.from(toBinary(NodeSchema, nodeToProto(undefined, node))).toString("base64url"),
      narSize: narSize.toString(),
      narSha256: Buffer.from(narSha256).toString("hex"),
      compression,
    };
    await this.#objects.put(`nar/${fileName}`, Buffer.from(JSON.stringify(record)), options);
  }
}
