import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import { RenderingNarCalculationService, StorePath } from "@tvix/store";
import { expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import {
  addressesOf,
  embeddedIn,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

/** 2,000 files of 0 to 20 KB in 40 folders, some of them executable, some contents twice. */
function writeSmallFiles(folder: string): void {
  const noise = seededBytes("small files", 40_000);
  for (let i = 0; i < 40; i++) {
    mkdirSync(join(folder, `${i % 14}/folder ${i}`), { recursive: true });
    for (let j = 0; j < 50; j++) {
      const start = (i * 131 + j * 17) % 20_000;
      const size = (i * 7919 + j * 104_729) % 20_000;
      const contents =
        j % 3 === 0 ? noise.subarray(start, start + size) : Buffer.alloc(size, `${i % 90} ${j} `);
      const mode = j % 10 === 0 ? 0o755 : 0o644;
      writeFileSync(join(folder, `${i % 14}/folder ${i}/${j}.txt`), contents, { mode });
    }
    symlinkSync(`../folder ${i}`, join(folder, `${i % 14}/folder ${i}/link`));
  }
}

/** Files of 20, 12 and 6 MB: noise, text, and both. */
function writeLargeFiles(folder: string): void {
  const noise = seededBytes("large files", 6_000_000);
  mkdirSync(folder);
  writeFileSync(join(folder, "noise"), noise);
  writeFileSync(join(folder, "text"), Buffer.alloc(12_000_000, "some text that is repeated, "));
  writeFileSync(join(folder, "both"), Buffer.concat([noise, Buffer.alloc(8_000_000), noise]));
}

describeWithTools("what real Nix makes of the same tree", ["nix-store"], (nixStore) => {
  /** SHA-256 of the NAR that Nix writes. */
  async function dumpHash(path: string): Promise<string> {
    const hash = createHash("sha256");
    const dump = spawn(nixStore, ["--dump", path], { stdio: ["ignore", "pipe", "inherit"] });
    for await (const data of dump.stdout) hash.update(data);
    return hash.digest("hex");
  }

  it.each([
    ["2,000 small files", writeSmallFiles],
    ["files of up to 20 MB", writeLargeFiles],
  ])(
    "is what an import stores, directly and through the daemon: %s",
    async (_, writeTree) => {
      using folder = temporaryFolder();
      const tree = join(folder.path, "tree");
      writeTree(tree);
      const expected = await dumpHash(tree);

      const daemonFolder = join(folder.path, "daemon");
      const address = `grpc+unix://${folder.path}/sock`;
      await using _daemon = await startDaemon([
        `--listen-address=${folder.path}/sock`,
        ...embeddedIn(daemonFolder),
      ]);
      const direct = embeddedIn(join(folder.path, "direct"));
      for (const services of [direct, throughDaemon(address)]) {
        const outcome = await tvixStore(["import", tree, ...services]);
        expect(outcome.stderr).toBe("");
        const storePath = StorePath.parseAbsolute(outcome.stdout.trim());
        await using stored = await openServices(addressesOf(services));
        const pathInfo = (await stored.pathInfoService.get(storePath.hashPart))!;
        expect(Buffer.from(pathInfo.narSha256).toString("hex")).toBe(expected);

        // Computed from the stored contents, not from the imported ones.
        const nar = await new RenderingNarCalculationService(stored).calculateNar(pathInfo.node);
        expect(Buffer.from(nar.narSha256).toString("hex")).toBe(expected);
        expect(nar.narSize).toBe(pathInfo.narSize);
      }
    },
    300_000,
  );
});
