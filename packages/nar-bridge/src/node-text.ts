import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { anonymousNodeFromProto, type Node, nodeToProto } from "@tvix/castore";
import { NodeSchema } from "@tvix/proto/castore";
import { HttpError } from "./http-error.ts";

/** Formats a node for a URL: its message, without a name, in base64url without padding. */
export function formatNode(node: Node): string {
  return Buffer.from(toBinary(NodeSchema, nodeToProto(undefined, node))).toString("base64url");
}

/**
 * Parses what {@link formatNode} returns.
 *
 * @throws HttpError 400 for anything else
 */
export function parseNode(text: string): Node {
  try {
    const bytes = Buffer.from(text, "base64url");
    if (bytes.toString("base64url") !== text) throw new Error("expected base64url without padding");
    return anonymousNodeFromProto(fromBinary(NodeSchema, bytes));
  } catch (error) {
    const reason = (error as Error).message;
    throw new HttpError(400, `Cannot parse the root node in the path: ${reason}`, { cause: error });
  }
}
