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

function list(service: PathInfoService, after?: Uint8Array): Promise<PathInfo[]> {
  return Array.fromAsync(service.list({ after }));
}

const hashOf = ({ storePath }: PathInfo): Uint8Array => storePath.hashPart;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** Signatures by keys of these names. */
const signaturesBy = (...names: readonly string[]) =>
  names.map((name) => ({ name, data: seededBytes(name, 64) }));

const signersOf = (pathInfo: PathInfo | undefined) =>
  pathInfo?.signatures.map(({ name }) => name).toSorted();

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
      const names = Array.from({ length: 350 }, (_, i) => `path-${i}`);
      await Promise.all(names.map((name) => service.put(pathInfo(name))));
      const found = (await list(service)).map(({ storePath }) =>
        Buffer.from(storePath.hashPart).toString("hex"),
      );
      const expected = names.map((name) => Buffer.from(storePath(name).hashPart).toString("hex"));
      expect(found).toEqual(expected.toSorted());
    });

    it("gives many PathInfos in the order in which they are asked for", async () => {
      const names = Array.from({ length: 60 }, (_, i) => `path-${i}`);
      const given = names.map((name) => pathInfo(name));
      await Promise.all(given.map((one) => service.put(one)));
      // More than one call of any transport takes, some of them twice, most of them absent.
      const asked = Array.from({ length: 2500 }, (_, i) => names[(i * 7) % 600] ?? `absent-${i}`);
      const found = await service.getMany(asked.map((name) => storePath(name).hashPart));
      const isGiven = new Set(names);
      expect(found.map((one) => one?.storePath.name)).toEqual(
        asked.map((name) => (isGiven.has(name) ? name : undefined)),
      );
      const last = found.findLast((one) => one !== undefined)!;
      expect(encodePathInfo(last)).toEqual(encodePathInfo(pathInfo(last.storePath.name)));
    });

    it("gives nothing for no hash parts, and one for one", async () => {
      await service.put(EVERYTHING);
      expect(await service.getMany([])).toEqual([]);
      const [found, ...others] = await service.getMany([hashOf(EVERYTHING)]);
      expect(encodePathInfo(found!)).toEqual(encodePathInfo(EVERYTHING));
      expect(others).toEqual([]);
      expect(await service.getMany([storePath("never").hashPart])).toEqual([undefined]);
    });

    it.each([0, 19, 21])("refuses many hash parts if one has %i bytes", async (length) => {
      const wrong = [storePath("a").hashPart, new Uint8Array(length)];
      await expect(service.getMany(wrong)).rejects.toMatchObject({ code: "invalid_argument" });
    });

    it("keeps the signatures of a PathInfo that is put again without them", async () => {
      await service.put(EVERYTHING);
      const stored = await service.put({ ...EVERYTHING, signatures: [] });
      const found = await service.get(hashOf(EVERYTHING));
      for (const one of [stored, found!]) {
        expect(encodePathInfo(one)).toEqual(encodePathInfo(EVERYTHING));
      }
    });

    it("adds signatures to those of the same PathInfo, each once", async () => {
      for (const names of [["a-1"], ["b-1", "a-1"], [], ["c-1"]]) {
        await service.put(pathInfo("signed", { signatures: signaturesBy(...names) }));
      }
      const stored = await service.put(pathInfo("signed", { signatures: signaturesBy("b-1") }));
      const found = await service.get(storePath("signed").hashPart);
      for (const one of [stored, found]) expect(signersOf(one)).toEqual(["a-1", "b-1", "c-1"]);
    });

    it("keeps two signatures by keys of one name", async () => {
      const [one, other] = [seededBytes("one", 64), seededBytes("other", 64)];
      for (const data of [one, other]) {
        await service.put(pathInfo("signed", { signatures: [{ name: "a-1", data }] }));
      }
      const found = await service.get(storePath("signed").hashPart);
      expect(found!.signatures.map(({ data }) => hex(data))).toEqual([hex(one), hex(other)]);
    });

    it.each([
      ["NAR hash", { narSha256: seededBytes("other", 32) }],
      ["NAR size", { narSize: 1n }],
      ["references", { references: [storePath("a")] }],
    ] as const)("drops signatures when the %s changes, which they cover", async (_, changed) => {
      await service.put(pathInfo("signed", { signatures: signaturesBy("a-1") }));
      const given = pathInfo("signed", { ...changed, signatures: signaturesBy("b-1") });
      await service.put(given);
      const found = await service.get(storePath("signed").hashPart);
      expect(encodePathInfo(found!)).toEqual(encodePathInfo(given));
    });

    it("keeps the signatures of all who put the same PathInfo at the same time", async () => {
      const names = Array.from({ length: 32 }, (_, i) => `key-${i}`);
      await Promise.all(
        names.map((name) => service.put(pathInfo("same", { signatures: signaturesBy(name) }))),
      );
      const found = await service.get(storePath("same").hashPart);
      expect(signersOf(found)).toEqual(names.toSorted());
    });

    it("refuses signatures without end, and keeps those that it has", async () => {
      const long = (i: number) => ({ name: `${i}`.padEnd(100_000, "x"), data: new Uint8Array(64) });
      const putAll = async () => {
        for (let i = 0; i < 12; i++) await service.put(pathInfo("same", { signatures: [long(i)] }));
      };
      await expect(putAll()).rejects.toMatchObject({ code: "resource_exhausted" });
      const found = await service.get(storePath("same").hashPart);
      expect(found!.signatures.length).toBe(10);
      await service.put(pathInfo("same"));
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

    it("lists from a cursor on, whether or not there is a PathInfo of it", async () => {
      const names = Array.from({ length: 120 }, (_, i) => `path-${i}`);
      await Promise.all(names.map((name) => service.put(pathInfo(name))));
      const all = names.map((name) => hex(storePath(name).hashPart)).toSorted();
      const cursors = ["absent", "other", "path-0", "path-119"].map((name) => storePath(name));
      for (const after of [
        ...cursors.map(({ hashPart }) => hashPart),
        new Uint8Array(20),
        new Uint8Array(20).fill(255),
        Buffer.from(all[0]!, "hex"),
        Buffer.from(all.at(-1)!, "hex"),
      ]) {
        const found = (await list(service, after)).map((one) => hex(hashOf(one)));
        expect(found).toEqual(all.filter((hashPart) => hashPart > hex(after)));
      }
    });

    it("lists the same in pages, of which each has both the PathInfos and their encodings", async () => {
      const names = Array.from({ length: 350 }, (_, i) => `path-${i}`);
      await Promise.all(names.map((name) => service.put(pathInfo(name))));
      await service.put(EVERYTHING);
      const listed = await list(service);
      for (const after of [undefined, hashOf(listed[99]!), hashOf(listed.at(-1)!)]) {
        const pages = await Array.fromAsync(service.listPages({ after }));
        const expected = after === undefined ? listed : await list(service, after);
        const encodings = expected.map((one) => hex(encodePathInfo(one)));
        for (const page of pages) expect(page.length).toBeGreaterThan(0);
        expect(pages.reduce((sum, { length }) => sum + length, 0)).toBe(expected.length);
        const decoded = pages.flatMap((page) => [...page]);
        expect(decoded.map((one) => hex(encodePathInfo(one)))).toEqual(encodings);
        expect(pages.flatMap((page) => [...page.encoded()]).map(hex)).toEqual(encodings);
      }
    });

    it("gives PathInfos whose copies are PathInfos of their own", async () => {
      await service.put(EVERYTHING);
      const found = (await service.get(hashOf(EVERYTHING)))!;
      for (const one of [found, ...(await list(service))]) {
        expect(encodePathInfo({ ...one })).toEqual(encodePathInfo(EVERYTHING));
        const changed = { ...one, narSize: 7n };
        const expected = encodePathInfo({ ...EVERYTHING, narSize: 7n });
        expect(encodePathInfo(changed)).toEqual(expected);
      }
    });

    it("lists everything in pages, each from where the one before ended", async () => {
      const names = Array.from({ length: 250 }, (_, i) => `path-${i}`);
      await Promise.all(names.map((name) => service.put(pathInfo(name))));
      const found: string[] = [];
      for (let after: Uint8Array | undefined; ; ) {
        const page: PathInfo[] = [];
        for await (const one of service.list({ after })) if (page.push(one) === 60) break;
        if (page.length === 0) break;
        found.push(...page.map((one) => hex(hashOf(one))));
        after = hashOf(page.at(-1)!);
      }
      expect(found).toEqual(names.map((name) => hex(storePath(name).hashPart)).toSorted());
    });

    it.each([0, 19, 21])("refuses a cursor of %i bytes when it is iterated", async (length) => {
      const listing = service.list({ after: new Uint8Array(length) });
      await expect(Array.fromAsync(listing)).rejects.toMatchObject({ code: "invalid_argument" });
    });

    it("holds nothing for listings that are not iterated, or left", async () => {
      await Promise.all(["a", "b", "c"].map((name) => service.put(pathInfo(name))));
      const listings = Array.from({ length: 100 }, () => service.list());
      for (let i = 0; i < 100; i++) for await (const _ of service.list()) break;
      expect((await list(service)).length).toBe(3);
      await service.put(pathInfo("d"));
      expect((await Array.fromAsync(listings.at(-1)!)).length).toBe(4);
    });

    it("lists what is there from the beginning, while more is put", async () => {
      const names = Array.from({ length: 250 }, (_, i) => `path-${i}`);
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
      await expect(service.get(hashOf(given), { signal })).rejects.toBe(reason);
      await expect(service.getMany([hashOf(given)], { signal })).rejects.toBe(reason);
      for (const listing of [service.list({ signal }), service.listPages({ signal })]) {
        await expect(Array.fromAsync<unknown>(listing)).rejects.toBe(reason);
      }
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

    it("keeps the signatures of both, who put the same PathInfo at the same time", async () => {
      const [first, second] = await createPair();
      await using other = second;
      await using one = first;
      const names = Array.from({ length: 20 }, (_, i) => [`one-${i}`, `other-${i}`]);
      await Promise.all(
        names.map(async ([ones, others]) => {
          const put = (service: PathInfoService, name: string) =>
            service.put(pathInfo("same", { signatures: signaturesBy(name) }));
          await Promise.all([put(one, ones!), put(other, others!)]);
        }),
      );
      for (const service of [one, other]) {
        const found = await service.get(storePath("same").hashPart);
        expect(signersOf(found)).toEqual(names.flat().toSorted());
      }
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
