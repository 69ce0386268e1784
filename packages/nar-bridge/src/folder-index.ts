import type { Directory, Node } from "@tvix/castore";
import { encodeName } from "./symlink-target.ts";

/** A media type of the index of a folder. */
export type FolderFormat = "text/html" | "application/json";

/** Formats the index of a folder. Bytes of names and targets that are not UTF-8 are shown as replacement characters. */
export function formatFolder({ entries }: Directory, format: FolderFormat): string {
  const sorted = entries.toSorted((a, b) => Buffer.compare(a.name, b.name));
  if (format === "application/json") {
    const shown = sorted.map(({ name, node }) => [text(name), describe(node)] as const);
    return JSON.stringify({ type: "directory", entries: Object.fromEntries(shown) });
  }
  const lines = sorted.map(({ name, node }) => {
    const slash = node.type === "directory" ? "/" : "";
    const target = node.type === "symlink" ? ` → ${escapeHtml(text(node.target))}` : "";
    const size = node.type === "file" ? ` (${node.size} bytes)` : "";
    const href = `./${encodeName(name)}${slash}`;
    return `<li><a href="${href}">${escapeHtml(text(name))}${slash}</a>${target}${size}`;
  });
  return `<!DOCTYPE html>\n<meta charset="utf-8">\n<title>Folder</title>\n<ul>\n${lines.join("\n")}\n</ul>\n`;
}

/** Describes a node as the listings of NARs do. */
function describe(node: Node): object {
  switch (node.type) {
    case "directory":
      return { type: "directory" };
    case "symlink":
      return { type: "symlink", target: text(node.target) };
    case "file": {
      const size = Number(node.size);
      return { type: "regular", size, ...(node.executable && { executable: true }) };
    }
  }
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
