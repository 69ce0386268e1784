import { basename, dirname, join } from "node:path";
import type { Subject } from "../subject.ts";
import type { ImportTrees } from "./import-steps.ts";

/** Writes one compressed archive: neither hashes nor an index, and nothing waits for the disk. */
export function tarZstd({ tree }: ImportTrees): Subject {
  const script = 'tar -C "$1" -cf - "$2" | zstd -1 -T2 -q > "$3"';
  return {
    name: "tar | zstd -1 -T2",
    needs: ["tar", "zstd"],
    steps: [
      {
        name: "first",
        tree,
        command: ({ folder }) => {
          const [parent, name] = [dirname(tree.path), basename(tree.path)];
          return { argv: ["sh", "-c", script, "sh", parent, name, join(folder, "tree.tar.zst")] };
        },
      },
    ],
  };
}
