/**
 * The one place where wire messages and domain values meet. Whatever comes in is validated here,
 * whatever goes out is in canonical form.
 */
import { create, fromBinary, type Message } from "@bufbuild/protobuf";
import * as pb from "@tvix/proto/castore";
import { compareBytes, quoteBytes } from "../bytes/byte-string.ts";
import { B3Digest } from "./digest.ts";
import { Directory, type DirectoryEntry } from "./directory.ts";
import { CastoreError } from "./errors.ts";
import { type DirectoryNode, type FileNode, type Node, symlinkTarget } from "./node.ts";
import { type PathComponent, pathComponent } from "./path.ts";

const NO_NAME = new Uint8Array(0);

/**
 * Decodes a directory. The bytes must not be changed afterwards.
 *
 * @throws CastoreError `invalid_argument` if the bytes are no message or the message breaks a rule
 */
export function decodeDirectory(bytes: Uint8Array): Directory {
  const directory = Directory.fromEncoding(bytes);
  if (directory !== undefined) return directory;
  let message: pb.Directory; // another encoding, or none
  try {
    message = fromBinary(pb.DirectorySchema, bytes);
  } catch (cause) {
    throw new CastoreError("invalid_argument", "Cannot decode directory: no valid message", {
      cause,
    });
  }
  return directoryFromProto(message);
}

/**
 * Validates the message of a directory.
 *
 * @throws CastoreError `invalid_argument` for invalid names, digests or targets, lists that are not
 *   strictly sorted, a name in two lists, a size above 64 bits, or unknown fields
 */
export function directoryFromProto(message: pb.Directory): Directory {
  refuseUnknownFields(message);
  for (const list of [message.directories, message.files, message.symlinks]) {
    for (const node of list) refuseUnknownFields(node);
    for (let i = 1; i < list.length; i++) {
      const [before, name] = [list[i - 1]!.name, list[i]!.name];
      if (compareBytes(before, name) >= 0) {
        throw new CastoreError(
          "invalid_argument",
          `Cannot use directory: name ${quoteBytes(name)} stands after ${quoteBytes(before)}, ` +
            "expected strictly ascending names",
        );
      }
    }
  }
  const entries: DirectoryEntry[] = [];
  for (const node of message.directories) {
    entries.push({ name: pathComponent(node.name), node: directoryNodeFromProto(node) });
  }
  for (const node of message.files) {
    entries.push({ name: pathComponent(node.name), node: fileNodeFromProto(node) });
  }
  for (const { name, target } of message.symlinks) {
    entries.push({
      name: pathComponent(name),
      node: { type: "symlink", target: symlinkTarget(target) },
    });
  }
  return Directory.from(entries);
}

/** A field that is dropped here would change the digest unnoticed. */
function refuseUnknownFields({ $typeName, $unknown }: Message): void {
  if ($unknown === undefined || $unknown.length === 0) return;
  throw new CastoreError(
    "invalid_argument",
    `Cannot use directory: unknown field ${$unknown[0]!.no} in ${$typeName}`,
  );
}

/** The message of a node under a name, or of one that stands alone, whose name is empty. */
export function nodeToProto(name: PathComponent | undefined, node: Node): pb.Node {
  return create(pb.NodeSchema, { node: nodeCase(name ?? NO_NAME, node) });
}

function nodeCase(name: Uint8Array, node: Node): pb.Node["node"] {
  switch (node.type) {
    case "directory":
      return {
        case: "directory",
        value: create(pb.DirectoryNodeSchema, { name, digest: node.digest.bytes, size: node.size }),
      };
    case "file":
      return {
        case: "file",
        value: create(pb.FileNodeSchema, {
          name,
          digest: node.digest.bytes,
          size: node.size,
          executable: node.executable,
        }),
      };
    case "symlink":
      return {
        case: "symlink",
        value: create(pb.SymlinkNodeSchema, { name, target: node.target }),
      };
  }
}

/**
 * Validates a node that has a name.
 *
 * @throws CastoreError `invalid_argument` if it is no node, or its name, digest or target is invalid
 */
export function namedNodeFromProto(message: pb.Node): { name: PathComponent; node: Node } {
  const { name, node } = nodeFromProto(message);
  return { name: pathComponent(name), node };
}

/**
 * Validates a node that stands alone.
 *
 * @throws CastoreError `invalid_argument` if it is no node, has a name, or its digest or target is
 *   invalid
 */
export function anonymousNodeFromProto(message: pb.Node): Node {
  const { name, node } = nodeFromProto(message);
  if (name.length > 0) {
    throw new CastoreError(
      "invalid_argument",
      `Cannot use node named ${quoteBytes(name)}: expected an empty name`,
    );
  }
  return node;
}

function nodeFromProto({ node }: pb.Node): { name: Uint8Array; node: Node } {
  switch (node.case) {
    case "directory":
      return { name: node.value.name, node: directoryNodeFromProto(node.value) };
    case "file":
      return { name: node.value.name, node: fileNodeFromProto(node.value) };
    case "symlink":
      return {
        name: node.value.name,
        node: { type: "symlink", target: symlinkTarget(node.value.target) },
      };
    default:
      throw new CastoreError(
        "invalid_argument",
        "Cannot use node: expected a directory, a file or a symlink, found none",
      );
  }
}

function directoryNodeFromProto({ digest, size }: pb.DirectoryNode): DirectoryNode {
  return { type: "directory", digest: B3Digest.fromBytes(digest), size };
}

function fileNodeFromProto({ digest, size, executable }: pb.FileNode): FileNode {
  return { type: "file", digest: B3Digest.fromBytes(digest), size, executable };
}
