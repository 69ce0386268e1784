import type { Node } from "@tvix/castore";
import { escapeBytes } from "../arguments.ts";

/** Returns a node for JSON: its type, and the digest or target. */
export function nodeJson(node: Node): Readonly<Record<string, unknown>> {
  if (node.type === "symlink")
    return { type: node.type, target: escapeBytes(Buffer.from(node.target)) };
  return {
    type: node.type,
    digest: `${node.digest}`,
    ...(node.type === "file" && { executable: node.executable }),
  };
}
