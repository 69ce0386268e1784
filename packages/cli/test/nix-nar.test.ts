import { execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { importPath, MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import { fingerprint, ingestNar, listNar, NarInfo, SigningKey } from "@tvix/store";
import { expect, it } from "vitest";
import { temporaryFolder } from "./harness.ts";

function writeSomeTree(path: string): void {
  mkdirSync(join(path, "sub/deep/void"), { recursive: true });
  writeFileSync(join(path, "empty"), "");
  writeFileSync(join(path, "run"), "#!/bin/sh\n");
  chmodSync(join(path, "run"), 0o755);
  symlinkSync("sub/nowhere", join(path, "link"));
  writeFileSync(join(path, "sub/large"), seededBytes("nix", 3_000_000));
  for (let i = 0; i < 300; i++) {
    writeFileSync(join(path, `sub/deep/${i}`), seededBytes(`nix ${i}`, i * 31));
  }
}

function stores() {
  return {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
  };
}

describeWithTools(
  "the NAR of real Nix",
  ["nix-store", "with-nix-root"],
  (nixStore, withNixRoot) => {
    it("is stored as what an import stores", async () => {
      using folder = temporaryFolder();
      const tree = join(folder.path, "tree");
      writeSomeTree(tree);
      const dump = spawn(nixStore, ["--dump", tree], { stdio: ["ignore", "pipe", "inherit"] });
      const { node } = await ingestNar(dump.stdout, stores());
      expect(node).toEqual(await importPath(tree, stores()));
    });

    it("is listed, signed and described as Nix does it in a binary cache", async () => {
      using folder = temporaryFolder();
      const tree = join(folder.path, "tree");
      writeSomeTree(tree);
      const root = join(folder.path, "nix");
      const cache = join(folder.path, "cache");
      const keyFile = join(folder.path, "key");
      const key = SigningKey.generate("test-1");
      writeFileSync(keyFile, key.toSecretText());
      const nix = (program: string, ...args: string[]) =>
        execFileSync(withNixRoot, [root, program, ...args], {
          encoding: "utf8",
          stdio: "pipe",
          env: { ...process.env, HOME: folder.path },
        }).trim();
      const storePath = nix("nix-store", "--add", tree);
      const to = `file://${cache}?write-nar-listing=true&compression=none&secret-key=${keyFile}`;
      nix("nix", "--extra-experimental-features", "nix-command", "copy", "--to", to, storePath);

      const read = (end: string) =>
        readFileSync(join(cache, readdirSync(cache).find((name) => name.endsWith(end))!), "utf8");
      const services = stores();
      const node = await importPath(tree, services);
      const listing = await listNar(node, services.directoryService);
      expect(isDeepStrictEqual(JSON.parse(JSON.stringify(listing)), JSON.parse(read(".ls")))).toBe(
        true,
      );

      const narInfo = NarInfo.parse(read(".narinfo"));
      expect(`${narInfo}`).toBe(read(".narinfo"));
      expect(narInfo.storePath.toAbsolutePath()).toBe(storePath);
      const [signature] = narInfo.signatures;
      expect(key.verifyingKey.verify(fingerprint(narInfo), signature!)).toBe(true);
      expect(key.sign(fingerprint(narInfo))).toEqual(signature);

      const nar = readFileSync(join(cache, narInfo.url));
      const expected = { narSize: narInfo.narSize, narSha256: narInfo.narSha256 };
      const stream = (async function* () {
        yield nar;
      })();
      expect((await ingestNar(stream, stores(), { expected })).node).toEqual(node);
    });
  },
);
