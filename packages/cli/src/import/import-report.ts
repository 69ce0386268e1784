import type { ImportProgress } from "@tvix/castore";
import { formatNixHash, type PathInfo } from "@tvix/store";
import { nodeJson } from "../stored/node-json.ts";

/** A store path that was imported, and what that took. */
export interface ImportedPath {
  readonly pathInfo: PathInfo;
  readonly progress: ImportProgress;
}

/** Returns the line of `import --json` about an imported path. */
export function reportImport(source: string, { pathInfo, progress }: ImportedPath): string {
  const { storePath, node, narSha256, narSize, references } = pathInfo;
  const { bytes, newBytes } = progress;
  return `${JSON.stringify({
    source,
    storePath: storePath.toAbsolutePath(),
    root: nodeJson(node),
    references: references.map((reference) => reference.toAbsolutePath()),
    narHash: formatNixHash({ algorithm: "sha256", digest: narSha256 }, "sri"),
    narSize: Number(narSize),
    bytesRead: bytes,
    bytesNew: newBytes,
    bytesDeduplicated: newBytes === undefined ? undefined : bytes - newBytes,
  })}\n`;
}
