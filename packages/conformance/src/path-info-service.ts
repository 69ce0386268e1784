import { blake3Digest, type Node, symlinkTarget } from "@tvix/castore";
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
  digest: blake3Digest(Buffer.from("x")),
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

const EVERYTHING = pathInfo("same", {
  node: { ...FILE, size: 2n ** 64n - 1n, executable: false },
  references: ["a", "b", "same"].map(storePath),
  narSize: 2n,
  signatures: ["a-1", "b-1"].map((name) => ({ name, data: seededBytes(name, 64) })),
  deriver: storePath("derived"),
  ca: CONTENT_ADDRESSES[0],
});

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
  ["a deriver", pathInfo("derived", { deriver: storePath("derived") })],
  [
    "signatures",
    pathInfo("signed", {
      signatures: ["a-1", "b-1"].map((name) => ({ name, data: seededBytes(name, 64) })),
    }),
  ],
  ["everything at once", EVERYTHING],
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

/** What {@link pathInfoServiceSuite} runs over. */
export interface PathInfoServiceSuiteOptions {
  /** Gives a fresh, empty service, which the suite disposes of. */
  create: () => Promise<PathInfoService>;
  /**
   * Gives two services on one fresh, empty store, as two processes would open it; the suite disposes of
   * the first before the second. Default: the store is never shared.
   */
  createPair?: () => Promise<readonly [PathInfoService, PathInfoService]>;
}

/** Registers tests of everything that the contract of PathInfoService promises. */
export function pathInfoServiceSuite(name: string, options: PathInfoServiceSuiteOptions): void {
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

    it("replaces all of a PathInfo that is put again", async () => {
      const plain = pathInfo("same", { narSize: 1n });
      for (const given of [plain, EVERYTHING, plain]) {
        await service.put(given);
        const found = (await service.get(storePath("same").hashPart))!;
        expect(encodePathInfo(found)).toEqual(encodePathInfo(given));
        expect((await list(service)).length).toBe(1);
      }
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

    it("keeps one of the PathInfos that many put in each other's place", async () => {
      const given = Array.from({ length: 32 }, (_, i) => pathInfo("same", { narSize: BigInt(i) }));
      await Promise.all(given.map((pathInfo) => service.put(pathInfo)));
      const found = await list(service);
      expect(found.length).toBe(1);
      expect(given.map(encodePathInfo)).toContainEqual(encodePathInfo(found[0]!));
    });

    it("lists what is there from the beginning, while more is put", async () => {
      const names = Array.from({ length: 600 }, (_, i) => `path-${i}`);
      await Promise.all(names.map((name) => service.put(pathInfo(name))));
      const found: string[] = [];
      for await (const { storePath } of service.list()) {
        if (found.length % 100 === 0) await service.put(pathInfo(`late-${found.length}`));
        found.push(storePath.name);
      }
      expect(found).toEqual(expect.arrayContaining(names));
      expect(new Set(found).size).toBe(found.length);
    });

    it("ends a listing that is cancelled, with the reason", async () => {
      await Promise.all(["a", "b", "c"].map((name) => service.put(pathInfo(name))));
      const controller = new AbortController();
      const reason = new Error("enough");
      const listing = async () => {
        for await (const _ of service.list({ signal: controller.signal })) controller.abort(reason);
      };
      await expect(listing()).rejects.toBe(reason);
      expect((await list(service)).length).toBe(3);
    });

    it("rejects with the reason when it is cancelled before", async () => {
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

  const { createPair } = options;
  if (createPair === undefined) return;
  describe(`${name} shares its store`, () => {
    it("gives what another one put before it was closed", async () => {
      const [first, second] = await createPair();
      await using reader = second;
      {
        await using writer = first;
        await writer.put(EVERYTHING);
        expect((await list(reader)).length).toBe(1);
      }
      const found = (await reader.get(EVERYTHING.storePath.hashPart))!;
      expect(encodePathInfo(found)).toEqual(encodePathInfo(EVERYTHING));
    });

    it("takes PathInfos while another one does", async () => {
      const [first, second] = await createPair();
      await using other = second;
      await using one = first;
      const names = Array.from({ length: 50 }, (_, i) => `path-${i}`);
      await Promise.all(
        [one, other].flatMap((service) => names.map((name) => service.put(pathInfo(name)))),
      );
      for (const service of [one, other]) expect((await list(service)).length).toBe(50);
    });
  });
}
