import { B3Digest } from "@tvix/castore";
import { openPathInfoService, StorePath } from "@tvix/store";
import pLimit from "p-limit";
import type { Subject } from "../subject.ts";
import { integer, seeded } from "../trees/random.ts";
import { clientCommand } from "./client.ts";
import { daemonAddress, daemonCommand, ours } from "./tvix-store.ts";

const COUNT = 100_000;

/** So many puts share transactions. */
const AT_A_TIME = 2000;

/** Lists 100,000 PathInfos of a daemon. */
export function pathInfos(): Subject {
  return {
    name: `${ours.name} daemon`,
    needs: [],
    profiled: true,
    keepsFolder: true,
    prepare: async ({ folder }) => {
      await storePathInfos(ours.addresses(folder)[2], COUNT);
    },
    daemon: (place) => daemonCommand(ours, place),
    steps: [
      {
        name: "List 100,000",
        reportsWork: true,
        command: ({ socket }) => clientCommand("list", daemonAddress(socket)),
      },
    ],
  };
}

/** Stores made-up PathInfos, and gives the hash parts of their store paths. */
export async function storePathInfos(address: string, count: number): Promise<Uint8Array[]> {
  await using service = await openPathInfoService(address);
  const rng = seeded(7);
  const bytes = (length: number) => Uint8Array.from({ length }, () => integer(rng, 256));
  const put = async (i: number) => {
    const { storePath } = await service.put({
      storePath: StorePath.from(bytes(20), `package-${i}-1.${i % 100}`),
      node: { type: "directory", digest: B3Digest.fromBytes(bytes(32)), size: 2n * BigInt(i) },
      references: Array.from({ length: i % 6 }, (_, j) =>
        StorePath.from(bytes(20), `input-${j}-2.0`),
      ),
      narSize: 1000n * BigInt(i),
      narSha256: bytes(32),
      signatures: [{ name: "cache.example.org-1", data: bytes(64) }],
    });
    return storePath.hashPart;
  };
  return await pLimit(AT_A_TIME).map(Array.from({ length: count }).keys().toArray(), put);
}
