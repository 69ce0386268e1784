import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { anonymousNodeFromProto, type Node, nodeToProto } from "@tvix/castore";
import { NodeSchema } from "@tvix/proto/castore";
import { HttpError } from "./http-error.ts";

/** The texts of nodes that are in use: a push asks for that of its root several times. */
const texts = new WeakMap<Node, string>();

/** Formats a node for a URL: its message, without a name, in base64url without padding. */
export function formatNode(node: Node): string {
  let text = texts.get(node);
  if (text === undefined) {
    const message = toBinary(NodeSchema, nodeToProto(undefined, node));
    text = Buffer.from(message).toString("base64url");
    texts.set(node, text);
  }
  return text;
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
