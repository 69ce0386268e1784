import { B3Digest, type Node, symlinkTarget } from "@tvix/castore";
import {
  type ContentAddress,
  encodePathInfo,
  nixHash,
  type PathInfo,
  type PathInfoService,
  StorePath,
} from "@tvix/store";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { seededBytes } from "./trees.ts";

const FILE: Node = {
  type: "file",
  digest: B3Digest.of(Buffer.from("x")),
  size: 1n,
  executable: true,
};

function storePath(name: string): StorePath {
  return StorePath.from(seededBytes(name, StorePath.HASH_PART_LENGTH), name);
}

function pathInfo(name: string, fields: Partial<PathInfo> = {}): PathInfo {
  return {
    storePath: storePath(name),
    node: FILE,
    references: [],
    narSize: 120n,
    narSha256: seededBytes(`nar of ${name}`, 32),
    signatures: [],
    ...fields,
  };
}

const CONTENT_ADDRESSES: readonly ContentAddress[] = [
  ...(["nar", "flat"] as const).flatMap((kind) => [
    { kind, hash: nixHash("md5", seededBytes("md5", 16)) },
    { kind, hash: nixHash("sha1", seededBytes("sha1", 20)) },
    { kind, hash: nixHash("sha256", seededBytes("sha256", 32)) },
    { kind, hash: nixHash("sha512", seededBytes("sha512", 64)) },
  ]),
  { kind: "text", hash: nixHash("sha256", seededBytes("text", 32)) },
];

const PATH_INFOS: readonly (readonly [string, PathInfo])[] = [
  ["nothing but what it needs", pathInfo("plain")],
  [
    "a symlink as root",
    pathInfo("link", { node: { type: "symlink", target: symlinkTarget("x") } }),
  ],
  [
    "a directory as root",
    pathInfo("directory", {
      node: { type: "directory", digest: FILE.digest, size: 2n ** 64n - 1n },
    }),
  ],
  [
    "references, itself among them",
    pathInfo("refs", { references: [storePath("a"), storePath("refs")] }),
  ],
  ["a deriver", pathInfo("derived", { deriver: storePath("derived.drv") })],
  [
    "signatures",
    pathInfo("signed", {
      signatures: ["a-1", "b-1"].map((name) => ({ name, data: seededBytes(name, 64) })),
    }),
  ],
  ["the largest NAR size", pathInfo("huge", { narSize: 2n ** 64n - 1n })],
  ...CONTENT_ADDRESSES.map(
    (ca) => [`content address ${ca.kind} ${ca.hash.algorithm}`, pathInfo("ca", { ca })] as const,
  ),
];

async function list(service: PathInfoService): Promise<PathInfo[]> {
  const found: PathInfo[] = [];
  for await (const pathInfo of service.list()) found.push(pathInfo);
  return found;
}

/**
 * What every PathInfoService has to do.
 *
 * @param create gives a fresh, empty service, which the suite disposes of
 */
export function pathInfoServiceSuite(
  name: string,
  options: { create: () => Promise<PathInfoService> },
): void {
  describe(`${name} is a PathInfoService`, () => {
    let service: PathInfoService;
    beforeEach(async () => {
      service = await options.create();
    });
    afterEach(() => service[Symbol.asyncDispose]());

    it("does not have what was never put", async () => {
      expect(await service.get(storePath("never").hashPart)).toBeUndefined();
      expect(await list(service)).toEqual([]);
    });

    it.each([0, 19, 21, 32])("refuses a hash part of %i bytes", async (length) => {
      await expect(service.get(new Uint8Array(length))).rejects.toMatchObject({
        code: "invalid_argument",
      });
    });

    it.each(PATH_INFOS)("gives back a PathInfo with %s", async (_, given) => {
      const stored = await service.put(given);
      const found = (await service.get(given.storePath.hashPart))!;
      for (const pathInfo of [stored, found, ...(await list(service))]) {
        expect(encodePathInfo(pathInfo)).toEqual(encodePathInfo(given));
      }
    });

    it("replaces a PathInfo that is put again", async () => {
      await service.put(pathInfo("same", { narSize: 1n }));
      await service.put(pathInfo("same", { narSize: 2n }));
      expect((await service.get(storePath("same").hashPart))?.narSize).toBe(2n);
      expect((await list(service)).length).toBe(1);
    });

    it("lists everything, ordered by hash part", async () => {
      const names = Array.from({ length: 1200 }, (_, i) => `path-${i}`);
      await Promise.all(names.map((name) => service.put(pathInfo(name))));
      const found = (await list(service)).map(({ storePath }) =>
        Buffer.from(storePath.hashPart).toString("hex"),
      );
      const expected = names.map((name) => Buffer.from(storePath(name).hashPart).toString("hex"));
      expect(found).toEqual(expected.toSorted());
    });

    it("takes the same PathInfo from many at the same time", async () => {
      await Promise.all(Array.from({ length: 32 }, () => service.put(pathInfo("same"))));
      expect((await list(service)).length).toBe(1);
    });

    it("rejects with the reason when it is cancelled", async () => {
      const reason = new Error("enough");
      const signal = AbortSignal.abort(reason);
      const given = pathInfo("cancelled");
      await expect(service.put(given, { signal })).rejects.toBe(reason);
      await expect(service.get(given.storePath.hashPart, { signal })).rejects.toBe(reason);
      const listing = async () => {
        for await (const _ of service.list({ signal }));
      };
      await expect(listing()).rejects.toBe(reason);
      expect(await list(service)).toEqual([]);
    });

    it("lets a listing end early", async () => {
      await Promise.all(["a", "b", "c"].map((name) => service.put(pathInfo(name))));
      for await (const _ of service.list()) break;
      expect((await list(service)).length).toBe(3);
    });
  });
}
