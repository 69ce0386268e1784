import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Place, Subject } from "../subject.ts";
import { daemonAddress, daemonCommand, importCommand, ours } from "./tvix-store.ts";

/** A program of Node.js that does nothing. */
export function bareNode(): Subject {
  const command = () => ({ argv: [process.execPath, "-e", "0"] });
  return { name: "node", needs: [], steps: [{ name: "-e 0", command }] };
}

/** Commands that have next to nothing to do. */
export function smallestCommands(): Subject {
  const file = ({ folder }: Place) => join(folder, "hello");
  return {
    name: ours.name,
    needs: [],
    profiled: true,
    prepare: async (place) => await writeFile(file(place), "hello"),
    steps: [
      { name: "--version", command: () => ({ argv: [...ours.argv, "--version"] }) },
      {
        name: "import of a small file, direct",
        command: (place) => importCommand(ours, ours.addresses(place.folder), file(place)),
      },
    ],
  };
}

/** The import of a small file through a daemon. */
export function smallestImport(): Subject {
  const file = ({ folder }: Place) => join(folder, "hello");
  return {
    name: `${ours.name} daemon`,
    needs: [],
    profiled: true,
    prepare: async (place) => await writeFile(file(place), "hello"),
    daemon: (place) => daemonCommand(ours, place),
    steps: [
      {
        name: "import of a small file",
        command: (place) => {
          const address = daemonAddress(place.socket);
          return importCommand(ours, [address, address, address], file(place));
        },
      },
    ],
  };
}
