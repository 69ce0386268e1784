import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../measure.ts";
import type { Place, Subject } from "../subject.ts";
import type { Tree } from "../trees/tree.ts";
import { clientCommand } from "./client.ts";
import { daemonAddress, daemonCommand, importCommand, ours } from "./tvix-store.ts";

/** Renders the NAR of a stored tree in the process that reads the stores. */
export function narRender(tree: Tree): Subject {
  return {
    name: "NAR render, direct",
    needs: [],
    profiled: true,
    keepsFolder: true,
    prepare: (place) => storeTree(place, tree),
    steps: [
      {
        name: "to a sink",
        reportsWork: true,
        command: ({ folder }) => clientCommand("render-nar", ...ours.addresses(folder)),
      },
    ],
  };
}

/** Stores the NAR of a tree, which is a file, in the process that writes the stores. */
export function narIngest(tree: Tree): Subject {
  const nar = (folder: string) => join(folder, "tree.nar");
  const step = (name: string) => ({
    name,
    reportsWork: true,
    command: ({ folder }: Place) => {
      const [blobs, directories] = ours.addresses(folder);
      return clientCommand("ingest-nar", nar(folder), blobs, directories);
    },
  });
  return {
    name: "NAR ingest, direct",
    needs: [],
    profiled: true,
    prepare: async ({ folder, socket }) => {
      const source = join(folder, "source");
      await mkdir(source);
      await storeTree({ folder: source, socket }, tree);
      await runCommand(clientCommand("render-nar", ...ours.addresses(source), nar(folder)));
      await rm(source, { recursive: true });
    },
    steps: [step("first"), step("again")],
  };
}

/** Has a daemon compute size and digest of the NAR of a stored tree. */
export function calculateNar(tree: Tree): Subject {
  return {
    name: "NAR, daemon",
    needs: [],
    profiled: true,
    keepsFolder: true,
    prepare: (place) => storeTree(place, tree),
    daemon: (place) => daemonCommand(ours, place),
    steps: [
      {
        name: "CalculateNAR",
        reportsWork: true,
        command: ({ socket }) => clientCommand("calculate-nar", daemonAddress(socket)),
      },
    ],
  };
}

async function storeTree({ folder }: Place, { path }: Tree): Promise<void> {
  await runCommand(importCommand(ours, ours.addresses(folder), path));
}
