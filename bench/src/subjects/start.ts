import { mkdir, writeFile } from "node:fs/promises";
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
  const stores = ({ folder }: Place) => join(folder, "direct");
  const importInto = (addresses: readonly string[], place: Place) =>
    importCommand(ours, addresses, file(place));
  return {
    name: ours.name,
    needs: [],
    profiled: true,
    prepare: async (place) => {
      await writeFile(file(place), "hello");
      await mkdir(stores(place));
    },
    daemon: (place) => daemonCommand(ours, place),
    steps: [
      { name: "--version", command: () => ({ argv: [...ours.argv, "--version"] }) },
      {
        name: "import of a small file, direct",
        command: (place) => importInto(ours.addresses(stores(place)), place),
      },
      {
        name: "import of a small file, daemon",
        command: (place) => importInto(Array(3).fill(daemonAddress(place.socket)), place),
      },
    ],
  };
}
