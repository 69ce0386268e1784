import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { createReadStream, mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { collectBytes, MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import { renderNar, SigningKey, StorePath } from "@tvix/store";
import { NixHttpPathInfoService } from "@tvix/store/nix-http";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import { addressesOf, startDaemon, temporaryFolder, throughDaemon } from "./harness.ts";

/** Builds something that refers to something else, and to itself. */
const EXPRESSION = `
  let text = builtins.toFile "text" "some text"; in
  derivation {
    name = "built";
    builder = "/bin/sh";
    args = [ "-c" "echo \${text} $out > $out" ];
    system = "x86_64-linux";
  }
`;

const COMPRESSIONS = ["none", "xz", "bzip2", "gzip", "zstd", "br"];

describeWithTools(
  "a binary cache of real Nix",
  ["nix-store", "with-nix-root"],
  (_nixStore, withNixRoot) => {
    const folder = temporaryFolder();
    const key = SigningKey.generate("test-1");
    let base: string;
    let storePaths: string[];

    const nix = (program: string, ...args: string[]) =>
      execFileSync(withNixRoot, [join(folder.path, "nix"), program, ...args], {
        stdio: "pipe",
        env: { ...process.env, HOME: folder.path },
        maxBuffer: 100_000_000,
      });

    const server = createServer((request, response) => {
      const stream = createReadStream(join(folder.path, "caches", request.url!));
      stream.on("error", () => response.writeHead(404).end());
      stream.pipe(response);
    });

    beforeAll(async () => {
      const tree = join(folder.path, "tree");
      mkdirSync(join(tree, "sub"), { recursive: true });
      writeFileSync(join(tree, "sub/large"), seededBytes("nix", 2_000_000));
      writeFileSync(join(tree, "text"), "text ".repeat(100_000));
      writeFileSync(join(folder.path, "key"), key.toSecretText());
      const run = (...args: Parameters<typeof nix>) =>
        nix(...args)
          .toString()
          .trim();
      storePaths = [
        run("nix-store", "--add", tree),
        run("nix-build", "--no-out-link", "-E", EXPRESSION),
      ];
      for (const compression of COMPRESSIONS) {
        const keys = `compression=${compression}&secret-key=${join(folder.path, "key")}`;
        const to = `file://${folder.path}/caches/${compression}?${keys}`;
        nix(
          "nix",
          "--extra-experimental-features",
          "nix-command",
          "copy",
          "--to",
          to,
          ...storePaths,
        );
      }
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    });

    afterAll(async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      folder[Symbol.dispose]();
    });

    const hashPartOf = (path: string) => StorePath.parseAbsolute(path).hashPart;

    it.each(COMPRESSIONS)("whose NARs are compressed by %s is read", async (compression) => {
      const stores = {
        blobService: new MemoryBlobService(),
        directoryService: new MemoryDirectoryService(),
      };
      const baseUrl = `${base}/${compression}`;
      const publicKeys = [key.verifyingKey];
      await using service = new NixHttpPathInfoService({ baseUrl, ...stores, publicKeys });
      for (const path of storePaths) {
        const pathInfo = (await service.get(hashPartOf(path)))!;
        expect(pathInfo.storePath.toAbsolutePath()).toBe(path);
        const nar = Buffer.from(await collectBytes(renderNar(pathInfo.node, stores)));
        expect(nar.equals(nix("nix-store", "--dump", path))).toBe(true);
        const references = nix("nix-store", "-q", "--references", path).toString().trim();
        const found = pathInfo.references.map((reference) => reference.toAbsolutePath());
        expect(found.toSorted()).toEqual(references.split("\n").filter(Boolean).toSorted());
      }

      const strange = [SigningKey.generate("test-1").verifyingKey];
      await using wary = new NixHttpPathInfoService({ baseUrl, ...stores, publicKeys: strange });
      const refused = wary.get(hashPartOf(storePaths[1]!));
      await expect(refused).rejects.toMatchObject({ code: "permission_denied" });
      // A content address needs no signature.
      expect(await wary.get(hashPartOf(storePaths[0]!))).toBeDefined();
    });

    it("is behind a daemon that keeps what was asked for", async () => {
      const file = join(folder.path, "stores.toml");
      writeFileSync(
        file,
        `
          [blobservices.default]
          type = "pack"
          path = "${folder.path}/store/blobs"
          [directoryservices.default]
          type = "sqlite"
          path = "${folder.path}/store/directories.sqlite"
          [pathinfoservices.default]
          type = "cache"
          near = "local"
          far = "upstream"
          [pathinfoservices.local]
          type = "sqlite"
          path = "${folder.path}/store/path-infos.sqlite"
          [pathinfoservices.upstream]
          type = "nix"
          base_url = "${base}/zstd"
          public_keys = ["${key.verifyingKey}"]
        `,
      );
      const socket = join(folder.path, "sock");
      await using daemon = await startDaemon([
        `--listen-address=${socket}`,
        "--store-composition",
        file,
      ]);
      const address = addressesOf(throughDaemon(`grpc+unix://${socket}`));
      {
        await using client = await openServices(address);
        for (const path of storePaths) {
          const pathInfo = (await client.pathInfoService.get(hashPartOf(path)))!;
          const nar = Buffer.from(await collectBytes(renderNar(pathInfo.node, client)));
          expect(nar.equals(nix("nix-store", "--dump", path))).toBe(true);
        }
        const unknown = await client.pathInfoService.get(new Uint8Array(20));
        expect(unknown).toBeUndefined();
        const listed = Array.fromAsync(client.pathInfoService.list());
        await expect(listed).rejects.toMatchObject({ code: "unimplemented" });
      }
      daemon.process.kill("SIGTERM");
      expect(await daemon.exit).toBe(0);
    });
  },
);
