import {
  B3Digest,
  Directory,
  type DirectoryService,
  encodeDirectory,
  MAX_MESSAGE_BYTES,
  pathComponent,
  symlinkTarget,
} from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sharedDirectoryTests } from "./directory-sharing.ts";
import {
  digestOf,
  directoryOfLength,
  EMPTY,
  expectNone,
  file,
  folder,
  getAll,
  hexOf,
  LEAF,
  MIDDLE,
  put,
  ROOT,
  readGoDirectories,
  TREE,
} from "./directory-support.ts";

/** What {@link directoryServiceSuite} runs over. */
export interface DirectoryServiceSuiteOptions {
  /** Gives a fresh, empty service, which the suite disposes of. */
  create: () => Promise<DirectoryService>;
  /**
   * Gives two services on one fresh, empty store, as two processes would open it; the suite disposes of
   * the first before the second. Default: the store is never shared.
   */
  createPair?: () => Promise<readonly [DirectoryService, DirectoryService]>;
  /** Whether directories are tried that are as long as a message can be, which takes a second. Default: true. */
  longest?: boolean;
}

/** Makes a directory of that many bytes once, when it is first asked for. */
function onceOfLength(bytes: number): () => Directory {
  let made: Directory | undefined;
  return () => {
    made ??= directoryOfLength(bytes);
    return made;
  };
}

const longest = onceOfLength(MAX_MESSAGE_BYTES);
const longer = onceOfLength(MAX_MESSAGE_BYTES + 1);

/** Registers tests of everything that the contract of DirectoryService promises. */
export function directoryServiceSuite(name: string, options: DirectoryServiceSuiteOptions): void {
  describe(`${name} is a DirectoryService`, () => {
    let service: DirectoryService;
    beforeEach(async () => {
      service = await options.create();
    });
    afterEach(() => service[Symbol.asyncDispose]());

    it("does not have what was never put", async () => {
      expect(await service.get(digestOf(EMPTY))).toBeUndefined();
      expect(await getAll(service, digestOf(ROOT))).toEqual([]);
    });

    it("stores the empty directory", async () => {
      expect((await put(service, [EMPTY])).equals(digestOf(EMPTY))).toBe(true);
      expect((await service.get(digestOf(EMPTY)))?.entries).toEqual([]);
      expect(await getAll(service, digestOf(EMPTY))).toEqual(hexOf([EMPTY]));
    });

    it("gives back each directory of a tree as it was put", async () => {
      expect((await put(service, TREE)).equals(digestOf(ROOT))).toBe(true);
      for (const directory of TREE) {
        const found = (await service.get(digestOf(directory)))!;
        expect(encodeDirectory(found).bytes).toEqual(encodeDirectory(directory).bytes);
        expect(found.size).toBe(directory.size);
      }
    });

    it("gives a tree with the root first, each directory once and after one that refers to it", async () => {
      await put(service, TREE);
      const found = await getAll(service, digestOf(ROOT));
      expect(found.toSorted()).toEqual(hexOf(TREE).toSorted());
      const referredTo = new Set([digestOf(ROOT).hex]);
      for await (const directory of service.getRecursive(digestOf(ROOT))) {
        expect(referredTo).toContain(digestOf(directory).hex);
        for (const { node } of directory.entries) {
          if (node.type === "directory") referredTo.add(node.digest.hex);
        }
      }
      expect(await getAll(service, digestOf(MIDDLE))).toEqual(hexOf([MIDDLE, LEAF]));
    });

    it("reads and looks up many directories, each in its place", async () => {
      await put(service, TREE);
      const absent = Directory.from([file("absent")]);
      const asked = [LEAF, absent, ROOT, LEAF, EMPTY];
      const digests = asked.map(digestOf);
      expect(await service.hasMany(digests)).toEqual([true, false, true, true, true]);
      const found = await service.getMany(digests);
      expect(found.map((directory) => directory && digestOf(directory).hex)).toEqual([
        ...hexOf([LEAF]),
        undefined,
        ...hexOf([ROOT, LEAF, EMPTY]),
      ]);
      expect(await service.getMany([])).toEqual([]);
      expect(await service.hasMany([])).toEqual([]);
      const reason = new Error("enough");
      const signal = AbortSignal.abort(reason);
      await expect(service.getMany(digests, { signal })).rejects.toBe(reason);
      await expect(service.hasMany(digests, { signal })).rejects.toBe(reason);
    });

    it("leaves out of a tree what is to be skipped", async () => {
      await put(service, TREE);
      const asked: string[] = [];
      const skip = async (digests: readonly B3Digest[]) => {
        asked.push(...digests.map(({ hex }) => hex));
        return digests.map((digest) => digest.equals(digestOf(MIDDLE)));
      };
      const found: string[] = [];
      for await (const directory of service.getRecursive(digestOf(ROOT), { skip })) {
        found.push(digestOf(directory).hex);
      }
      expect(found[0]).toBe(digestOf(ROOT).hex);
      expect(found.toSorted()).toEqual(hexOf([ROOT, LEAF, EMPTY]).toSorted());
      expect(asked.toSorted()).toEqual(hexOf([LEAF, MIDDLE, EMPTY]).toSorted());
    });

    it("takes sizes that count each entry once, as the client in Go writes them", async () => {
      const tree = readGoDirectories();
      const root = await put(
        service,
        tree.map(({ directory }) => directory),
      );
      expect(root.hex).toBe(tree.at(-1)!.digest_hex);
      for (const { directory, digest_hex, size } of tree) {
        const digest = B3Digest.fromBytes(Buffer.from(digest_hex, "hex"));
        const found = (await service.get(digest))!;
        expect(encodeDirectory(found).bytes).toEqual(encodeDirectory(directory).bytes);
        expect(found.acceptsSize(BigInt(size))).toBe(true);
      }
      expect((await getAll(service, root)).length).toBe(tree.length);
      // Above it, a directory of ours, and one that refers to the same in both ways.
      const top = tree.at(-1)!.directory;
      const once = { type: "directory", digest: root, size: top.sizeOnce } as const;
      const both = Directory.from([
        { name: pathComponent("once"), node: once },
        folder("twice", top),
      ]);
      await put(service, [...tree.map(({ directory }) => directory), both]);
      expect((await getAll(service, digestOf(both))).length).toBe(tree.length + 1);
    });

    it("keeps names and targets of any bytes", async () => {
      const odd = Directory.from([
        file(Uint8Array.of(0xff, 0x01)),
        file("x".repeat(255)),
        {
          name: pathComponent(" "),
          node: { type: "symlink", target: symlinkTarget(new Uint8Array(4095).fill(0xfe)) },
        },
      ]);
      await put(service, [odd]);
      const found = (await service.get(digestOf(odd)))!;
      expect(encodeDirectory(found).bytes).toEqual(encodeDirectory(odd).bytes);
    });

    it("stores a tree 150 levels deep, and one 600 directories wide", async () => {
      const chain = [LEAF];
      for (let i = 0; i < 150; i++) chain.push(Directory.from([folder("below", chain.at(-1)!)]));
      await put(service, chain);
      expect(await getAll(service, digestOf(chain.at(-1)!))).toEqual(hexOf(chain).toReversed());

      const many = Array.from({ length: 600 }, (_, i) => Directory.from([file(`${i}`)]));
      const root = Directory.from(many.map((directory, i) => folder(`${i}`, directory)));
      await put(service, [...many, root]);
      expect((await getAll(service, digestOf(root))).length).toBe(601);
    });

    if (options.longest ?? true) {
      it("stores the longest directory that a message can hold", async () => {
        const digest = await put(service, [longest()]);
        expect((await service.get(digest))?.entries.length).toBe(longest().entries.length);
        expect(await getAll(service, digest)).toEqual([digest.hex]);
        const two = await service.getMany([digest, digest]);
        expect(two.map((found) => found && digestOf(found).hex)).toEqual([digest.hex, digest.hex]);
      });
    }

    it("refuses a directory that no message can hold, and stores nothing of its tree", async () => {
      const root = Directory.from([folder("leaf", LEAF), folder("longer", longer())]);
      await expect(put(service, [LEAF, longer(), root])).rejects.toMatchObject({
        code: "resource_exhausted",
      });
      await expectNone(service, [LEAF, longer(), root]);
    });

    it("takes a directory that is put again in the same tree", async () => {
      await put(service, [LEAF, LEAF, MIDDLE, LEAF, EMPTY, MIDDLE, ROOT, ROOT]);
      expect((await getAll(service, digestOf(ROOT))).length).toBe(TREE.length);
    });

    const wrongSize = Directory.from([
      {
        name: pathComponent("a"),
        node: { type: "directory", digest: digestOf(LEAF), size: LEAF.size + 1n },
      },
    ]);
    it.each([
      ["nothing", []],
      ["a directory before one that it refers to", [MIDDLE, LEAF]],
      ["a reference to a directory that does not come", [LEAF, ROOT]],
      ["a wrong size", [LEAF, wrongSize]],
      ["a directory that the root does not reach", [LEAF, EMPTY, MIDDLE]],
      ["a root that another directory follows", [LEAF, MIDDLE, LEAF]],
    ])("refuses %s and stores nothing", async (_, directories) => {
      await expect(put(service, directories)).rejects.toMatchObject({ code: "invalid_argument" });
      await expectNone(service, [...directories, LEAF]);
    });

    it("takes nothing more once it has refused something", async () => {
      await using putter = service.openPutter();
      await putter.put(LEAF);
      // A service may refuse a directory as it comes, or the whole tree at its end.
      const putting = async () => {
        await putter.put(ROOT);
        await putter.close();
      };
      const refused = { code: "invalid_argument" };
      await expect(putting()).rejects.toMatchObject(refused);
      await expect(putter.put(LEAF)).rejects.toMatchObject(refused);
      await expect(putter.close()).rejects.toMatchObject(refused);
      await expectNone(service, TREE);
    });

    it("refuses a reference to a directory of another tree", async () => {
      await put(service, [LEAF]);
      await expect(put(service, [MIDDLE])).rejects.toMatchObject({ code: "invalid_argument" });
      await expectNone(service, [MIDDLE]);
    });

    it("shows nothing of a tree before it is closed, or when its putter is dropped", async () => {
      {
        await using putter = service.openPutter();
        for (const directory of TREE) await putter.put(directory);
        await expectNone(service, TREE);
      }
      await expectNone(service, TREE);
      await put(service, TREE);
      expect((await getAll(service, digestOf(ROOT))).length).toBe(TREE.length);
    });

    it("gives the same digest when a putter is closed twice, and takes nothing more", async () => {
      await using putter = service.openPutter();
      await putter.put(LEAF);
      const first = await putter.close();
      expect((await putter.close()).equals(first)).toBe(true);
      await expect(putter.put(EMPTY)).rejects.toMatchObject({ code: "invalid_argument" });
    });

    it("rejects with the reason when it is cancelled before", async () => {
      await put(service, TREE);
      const reason = new Error("enough");
      const signal = AbortSignal.abort(reason);
      await expect(service.get(digestOf(ROOT), { signal })).rejects.toBe(reason);
      const reading = async () => {
        for await (const _ of service.getRecursive(digestOf(ROOT), { signal }));
      };
      await expect(reading()).rejects.toBe(reason);
      const other = Directory.from([file("other")]);
      await expect(put(service, [other], { signal })).rejects.toBe(reason);
      await expectNone(service, [other]);
    });

    it("ends a recursive read that is cancelled, with the reason", async () => {
      await put(service, TREE);
      const controller = new AbortController();
      const reason = new Error("enough");
      const { signal } = controller;
      const reading = async () => {
        for await (const _ of service.getRecursive(digestOf(ROOT), { signal })) {
          controller.abort(reason);
        }
      };
      await expect(reading()).rejects.toBe(reason);
      expect((await getAll(service, digestOf(ROOT))).length).toBe(TREE.length);
    });

    it("takes nothing more once a putter is disposed of", async () => {
      const putter = service.openPutter();
      await putter.put(LEAF);
      await putter[Symbol.asyncDispose]();
      const refused = { code: "invalid_argument" };
      await expect(putter.put(MIDDLE)).rejects.toMatchObject(refused);
      await expect(putter.close()).rejects.toMatchObject(refused);
    });

    it("shows no part of a tree without the rest when it is cancelled while it is closed", async () => {
      const controller = new AbortController();
      const reason = new Error("enough");
      await using putter = service.openPutter({ signal: controller.signal });
      for (const directory of TREE) await putter.put(directory);
      const closing = putter.close().catch((error) => error);
      controller.abort(reason);
      // Either may be first; and a remote service may have stored what nobody waits for any more.
      expect([reason, digestOf(ROOT)]).toContainEqual(await closing);
      for (const directory of TREE) {
        if ((await service.get(digestOf(directory))) === undefined) continue;
        expect(await getAll(service, digestOf(directory))).toContain(digestOf(directory).hex);
      }
      await put(service, TREE);
      expect((await getAll(service, digestOf(ROOT))).length).toBe(TREE.length);
    });

    it("stores nothing of a tree whose putter was cancelled", async () => {
      const controller = new AbortController();
      const reason = new Error("enough");
      await using putter = service.openPutter({ signal: controller.signal });
      await putter.put(LEAF);
      await putter.put(MIDDLE);
      controller.abort(reason);
      await expect(putter.close()).rejects.toBe(reason);
      await expectNone(service, [LEAF, MIDDLE]);
    });

    it("takes the same and overlapping trees from many putters at the same time", async () => {
      const trees = Array.from({ length: 24 }, (_, i) =>
        i % 2 === 0 ? TREE : [LEAF, MIDDLE, Directory.from([folder(`${i}`, MIDDLE)])],
      );
      const roots = await Promise.all(trees.map((tree) => put(service, tree)));
      for (const [i, root] of roots.entries()) {
        expect((await getAll(service, root)).length).toBe(new Set(hexOf(trees[i]!)).size);
      }
    });

    it("lets a reader end early", async () => {
      await put(service, TREE);
      for (let i = 0; i < 20; i++) {
        for await (const directory of service.getRecursive(digestOf(ROOT))) {
          expect(digestOf(directory).equals(digestOf(ROOT))).toBe(true);
          break;
        }
      }
      expect((await getAll(service, digestOf(ROOT))).length).toBe(TREE.length);
    });
  });

  if (options.createPair !== undefined) sharedDirectoryTests(name, options.createPair);
}
