import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blake3Digest, Composition } from "@tvix/castore";
import { afterAll, describe, expect, it } from "vitest";
import { STORE_REGISTRIES } from "../composition.ts";
import { fingerprint, SigningKey } from "../nix/signature.ts";
import { StorePath } from "../nix/store-path.ts";
import type { PathInfo } from "../pathinfo.ts";
import { MemoryPathInfoService } from "./memory.ts";
import { SigningPathInfoService } from "./signing.ts";

const PATH_INFO: PathInfo = {
  storePath: StorePath.from(new Uint8Array(20), "name"),
  node: { type: "file", digest: blake3Digest(new Uint8Array(0)), size: 0n, executable: false },
  references: [StorePath.from(new Uint8Array(20).fill(1), "other")],
  narSize: 112n,
  narSha256: new Uint8Array(32),
  signatures: [{ name: "cache-1", data: new Uint8Array(64) }],
};

const folder = mkdtempSync(join(tmpdir(), "signing-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("SigningPathInfoService", () => {
  it("adds a signature by its key to those that are there, once", async () => {
    const key = SigningKey.generate("ours-1");
    const inner = new MemoryPathInfoService();
    const service = new SigningPathInfoService({ inner, key });
    const once = await service.put(PATH_INFO);
    const twice = await service.put(once);
    for (const { signatures } of [once, twice, (await inner.get(new Uint8Array(20)))!]) {
      expect(signatures.map(({ name }) => name)).toEqual(["cache-1", "ours-1"]);
      expect(key.verifyingKey.verify(fingerprint(PATH_INFO), signatures[1]!)).toBe(true);
    }
    expect(await service.get(new Uint8Array(20))).toEqual(twice);
    expect(await Array.fromAsync(service.list())).toEqual([twice]);
  });

  it("is opened with a key in a file", async () => {
    const key = SigningKey.generate("file-1");
    const keyfile = join(folder, "key");
    writeFileSync(keyfile, `${key.toSecretText()}\n`);
    const text = `
      [pathinfoservices.default]
      type = "keyfile-signing"
      inner = "memory"
      keyfile = "${keyfile}"
      [pathinfoservices.memory]
      type = "memory"
    `;
    await using composition = await Composition.parseToml(STORE_REGISTRIES, text);
    const service = await composition.service("pathinfoservices");
    const { signatures } = await service.put(PATH_INFO);
    expect(key.verifyingKey.verify(fingerprint(PATH_INFO), signatures[1]!)).toBe(true);
  });

  it.each([
    ["absent", undefined, "not_found"],
    ["no key", "some secret text", "invalid_argument"],
  ])("refuses a file that is %s, without showing it", async (name, contents, code) => {
    const keyfile = join(folder, name);
    if (contents !== undefined) writeFileSync(keyfile, contents);
    const address = `keyfile-signing://?inner=memory://&keyfile=${encodeURIComponent(keyfile)}`;
    await using composition = new Composition(STORE_REGISTRIES);
    const opening = composition.service("pathinfoservices", address);
    await expect(opening).rejects.toMatchObject({ code });
    await expect(opening).rejects.not.toThrow("some secret");
  });
});
