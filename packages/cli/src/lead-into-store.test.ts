import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { leadIntoStore } from "./lead-into-store.ts";

const STORE_PATH = "00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60_p20170221182432";

describe("leadIntoStore", () => {
  const folder = mkdtempSync(join(tmpdir(), "tvix-lead-"));
  const at = (name: string) => join(folder, name);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const link = (name: string, target: string) => {
    mkdirSync(join(at(name), ".."), { recursive: true });
    symlinkSync(target, at(name));
    return at(name);
  };

  it("follows symlinks, also relative ones, chains and those of folders", () => {
    const up = "../".repeat(folder.split("/").length);
    for (const path of [
      link("absolute", `/nix/store/${STORE_PATH}`),
      link("slash", `/nix//store/./${STORE_PATH}/`),
      link("relative", `${up}nix/store/${STORE_PATH}`),
      link("chain", "./folder/../relative"),
      `${link("store", "/nix/store")}/${STORE_PATH}`,
    ]) {
      const found = { names: [STORE_PATH], isFollowed: true };
      expect([path, leadIntoStore(path)]).toEqual([path, found]);
      expect([path, leadIntoStore(path, { toStorePath: true })]).toEqual([path, found]);
    }
  });

  it("goes on with the path below a store path, which need not exist", () => {
    link("result", `/nix/store/${STORE_PATH}`);
    const names = [STORE_PATH, "bin", "hostname"];
    expect(leadIntoStore(at("result/bin/hostname"))).toEqual({ names, isFollowed: true });
    expect(leadIntoStore(`/nix/store/${names.join("/")}`)).toEqual({ names, isFollowed: false });
    const toStorePath = { toStorePath: true };
    expect(leadIntoStore(at("result/bin/hostname"), toStorePath)).toBeUndefined();
  });

  it("knows that other paths, and the store dir itself, lead to no store path", () => {
    link("circle", "circle");
    link("elsewhere", "/nix/storefront");
    link("dir", "/nix/store/");
    for (const name of ["circle", "elsewhere", "dir", "absent", "absent/below"]) {
      expect([name, leadIntoStore(at(name))]).toEqual([name, undefined]);
    }
  });
});
