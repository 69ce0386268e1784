import type { Subject } from "../subject.ts";
import { clientCommand } from "./client.ts";
import { daemonAddress, daemonCommand, ours } from "./tvix-store.ts";

/** Stats of a daemon that takes uploads meanwhile: of interest is how long the slow ones wait. */
export function statsBesideUploads(): Subject {
  return {
    name: `${ours.name} daemon`,
    needs: [],
    profiled: true,
    daemon: (place) => daemonCommand(ours, place),
    steps: [
      {
        name: "Stat beside 16 uploads",
        reportsWork: true,
        command: ({ socket }) => clientCommand("stat-beside-uploads", daemonAddress(socket)),
      },
    ],
  };
}
