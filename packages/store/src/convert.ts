/**
 * Converts between PathInfo messages and domain values. Every message that comes in is validated here.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  copyBytes,
  equalBytes,
  namedNodeFromProto,
  nodeToProto,
  pathComponent,
} from "@tvix/castore";
import * as pb from "@tvix/proto/store";
import { CA_TYPES, encodingOf, readCanonicalPathInfo } from "./canonical-path-info.ts";
import { inContext, quoteText, StoreError } from "./errors.ts";
import { type ContentAddress, textContentAddress } from "./nix/content-address.ts";
import { nixHash } from "./nix/nix-hash.ts";
import { signature } from "./nix/signature.ts";
import { StorePath } from "./nix/store-path.ts";
import type { PathInfo } from "./pathinfo.ts";

const SHA256_LENGTH = 32;

/**
 * Encodes a PathInfo canonically: fields in number order, default values left out. One that was decoded is not encoded
 * again, and shares the bytes, which must not be changed.
 */
export function encodePathInfo(pathInfo: PathInfo): Uint8Array {
  return encodingOf(pathInfo) ?? toBinary(pb.PathInfoSchema, pathInfoToProto(pathInfo));
}

/**
 * Decodes an encoded PathInfo, of which it keeps a copy.
 *
 * @throws StoreError `invalid_argument` if the bytes are not a valid message, or the message breaks a rule
 */
export function decodePathInfo(bytes: Uint8Array): PathInfo {
  const pathInfo = readCanonicalPathInfo(bytes);
  if (pathInfo !== undefined) return pathInfo;
  let message: pb.PathInfo;
  try {
    message = fromBinary(pb.PathInfoSchema, copyBytes(bytes));
  } catch (cause) {
    throw new StoreError("invalid_argument", "Cannot decode PathInfo: expected a valid message", {
      cause,
    });
  }
  return pathInfoFromProto(message);
}

/** Returns the message of a PathInfo. */
export function pathInfoToProto(pathInfo: PathInfo): pb.PathInfo {
  const { storePath, node, references, narSize, narSha256, signatures, deriver, ca } = pathInfo;
  return create(pb.PathInfoSchema, {
    node: nodeToProto(pathComponent(storePath.toString()), node),
    references: references.map((reference) => reference.hashPart),
    narinfo: create(pb.NARInfoSchema, {
      narSize,
      narSha256,
      signatures: signatures.map(({ name, data }) =>
        create(pb.NARInfo_SignatureSchema, { name, data }),
      ),
      referenceNames: references.map((reference) => reference.toString()),
      deriver:
        deriver && create(pb.StorePathSchema, { name: deriver.name, digest: deriver.hashPart }),
      ca: ca && caToProto(ca),
    }),
  });
}

/**
 * Validates the message of a PathInfo, and returns it.
 *
 * @throws StoreError `invalid_argument` naming the field, what was expected and what was found: no
 *   node, a node whose name is not a store path, references that do not match their names, digests
 *   and signatures of the wrong length, an unknown type of content address
 */
export function pathInfoFromProto(message: pb.PathInfo): PathInfo {
  const { node, references, narinfo } = message;
  if (node === undefined) throw invalid("node", "expected one, found none");
  if (narinfo === undefined) throw invalid("narinfo", "expected one, found none");
  const named = inField("node", () => namedNodeFromProto(node));
  const storePath = inField("node", () => StorePath.parse(Buffer.from(named.name).toString()));
  if (narinfo.narSha256.length !== SHA256_LENGTH) {
    throw invalid(
      "narinfo.nar_sha256",
      `expected ${SHA256_LENGTH} bytes, found ${narinfo.narSha256.length}`,
    );
  }
  return {
    storePath,
    node: named.node,
    references: referencesFromProto(references, narinfo.referenceNames),
    narSize: narinfo.narSize,
    narSha256: narinfo.narSha256,
    signatures: narinfo.signatures.map(({ name, data }, i) =>
      inField(`narinfo.signatures[${i}]`, () => signature(name, data)),
    ),
    ...(narinfo.deriver && { deriver: deriverFromProto(narinfo.deriver) }),
    ...(narinfo.ca && { ca: caFromProto(narinfo.ca) }),
  };
}

function referencesFromProto(digests: Uint8Array[], names: string[]): StorePath[] {
  if (digests.length !== names.length) {
    throw invalid(
      "narinfo.reference_names",
      `expected as many as references, ${digests.length}, found ${names.length}`,
    );
  }
  return names.map((name, i) => {
    const digest = digests[i]!;
    if (digest.length !== StorePath.HASH_PART_LENGTH) {
      throw invalid(
        `references[${i}]`,
        `expected ${StorePath.HASH_PART_LENGTH} bytes, found ${digest.length}`,
      );
    }
    const field = `narinfo.reference_names[${i}]`;
    const reference = inField(field, () => StorePath.parse(name));
    if (!equalBytes(reference.hashPart, digest)) {
      const expected = StorePath.from(digest, reference.name);
      throw invalid(field, `expected "${expected}" by references[${i}], found ${quoteText(name)}`);
    }
    return reference;
  });
}

function deriverFromProto({ name, digest }: pb.StorePath): StorePath {
  return inField("narinfo.deriver", () => StorePath.from(digest, name));
}

function caToProto({ kind, hash }: ContentAddress): pb.NARInfo_CA {
  const [type] = CA_TYPES.find(([, k, algorithm]) => k === kind && algorithm === hash.algorithm)!;
  return create(pb.NARInfo_CASchema, { type, digest: hash.digest });
}

function caFromProto({ type, digest }: pb.NARInfo_CA): ContentAddress {
  const found = CA_TYPES.find(([known]) => known === type);
  if (found === undefined) throw invalid("narinfo.ca.type", `expected 0 to 8, found ${type}`);
  const [, kind, algorithm] = found;
  const hash = inField("narinfo.ca.digest", () => nixHash(algorithm, digest));
  return kind === "text" ? textContentAddress(hash) : { kind, hash };
}

/** Parses a field, and names it in errors. */
function inField<T>(field: string, parse: () => T): T {
  return inContext(`Cannot use PathInfo: ${field}`, parse);
}

function invalid(field: string, reason: string): StoreError {
  return new StoreError("invalid_argument", `Cannot use PathInfo: ${field}: ${reason}`);
}
