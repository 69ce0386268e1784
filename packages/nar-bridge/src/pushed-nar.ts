import { B3Digest, COMPRESSIONS, type Compression } from "@tvix/castore";
import type { IngestedNar } from "@tvix/store";
import { z } from "zod";
import { formatNode, parseNode } from "./node-text.ts";

/** A NAR that a client has pushed. Its contents are stored. */
export interface PushedNar extends IngestedNar {
  /** The compression that it was pushed in, and is served in. */
  readonly compression: Compression | "none";
  /** SHA-256 digest of the file that was pushed, 32 bytes, and its length. */
  readonly fileSha256: Uint8Array;
  readonly fileSize: bigint;
  /** The file itself, where it was kept as a blob. */
  readonly file?: B3Digest | undefined;
  /**
   * Hash parts of the store paths whose narinfos name it, in nixbase32: at most {@link MAX_NAMES}. `undefined` where there
   * are more, or none yet.
   */
  readonly namedBy?: readonly string[] | undefined;
}

/** How many hash parts the record of a NAR has at most. */
const MAX_NAMES = 8;

const SIZE = z.string().regex(/^[1-9][0-9]{0,18}$/);
const DIGEST = z.string().regex(/^[0-9a-f]{64}$/);

const RECORD = z.strictObject({
  node: z.string(),
  narSize: SIZE,
  narSha256: DIGEST,
  compression: z.enum(["none", ...COMPRESSIONS]),
  fileSize: SIZE,
  fileSha256: DIGEST,
  file: DIGEST.optional(),
  namedBy: z.array(z.string()).max(MAX_NAMES).optional(),
  pushedMs: z.number(),
});

/**
 * Returns a NAR with one more store path whose narinfo names it.
 *
 * @param named the NAR as others name it; `undefined` if none does
 */
export function withName(
  nar: PushedNar,
  hashPart: string,
  named: PushedNar | undefined,
): PushedNar {
  const others = named === undefined ? [] : named.namedBy;
  const namedBy = others && [...new Set([...others, hashPart])];
  return { ...nar, namedBy: namedBy && namedBy.length <= MAX_NAMES ? namedBy : undefined };
}

/** A NAR that was pushed, as it is recorded. */
export interface NarRecord {
  readonly nar: PushedNar;
  /** When it was pushed, in milliseconds since 1970. */
  readonly pushedMs: number;
  /** The file that was pushed, whose contents may not be stored yet; `undefined` where they are. */
  readonly file: Uint8Array | undefined;
}

/** Ends the JSON of a record that has a file, which follows. */
const JSON_END = Buffer.from("\n");

/**
 * Encodes a NAR that is pushed now as JSON.
 *
 * @param pushedFile follows the JSON. Default: nothing does
 */
export function encodePushedNar(nar: PushedNar, pushedFile?: Uint8Array): Uint8Array {
  const { node, narSize, narSha256, compression, fileSize, fileSha256, file } = nar;
  const record: z.infer<typeof RECORD> = {
    node: formatNode(node),
    narSize: narSize.toString(),
    narSha256: hexOf(narSha256),
    compression,
    fileSize: fileSize.toString(),
    fileSha256: hexOf(fileSha256),
    file: file?.hex,
    namedBy: nar.namedBy && [...nar.namedBy],
    pushedMs: Date.now(),
  };
  const json = Buffer.from(JSON.stringify(record));
  return pushedFile === undefined ? json : Buffer.concat([json, JSON_END, pushedFile]);
}

/**
 * Decodes what {@link encodePushedNar} has made.
 *
 * @throws an Error of any kind for anything else
 */
export function decodePushedNar(bytes: Uint8Array): NarRecord {
  const jsonEnd = bytes.indexOf(JSON_END[0]!);
  const json = jsonEnd < 0 ? bytes : bytes.subarray(0, jsonEnd);
  const file = jsonEnd < 0 ? undefined : bytes.slice(jsonEnd + 1);
  const record = RECORD.parse(JSON.parse(Buffer.from(json).toString()));
  const nar = {
    node: parseNode(record.node),
    narSize: BigInt(record.narSize),
    narSha256: Buffer.from(record.narSha256, "hex"),
    compression: record.compression,
    fileSize: BigInt(record.fileSize),
    fileSha256: Buffer.from(record.fileSha256, "hex"),
    ...(record.file !== undefined && {
      file: B3Digest.fromBytes(Buffer.from(record.file, "hex")),
    }),
    ...(record.namedBy !== undefined && { namedBy: record.namedBy }),
  };
  return { nar, pushedMs: record.pushedMs, file };
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
