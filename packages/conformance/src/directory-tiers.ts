import {
  type B3Digest,
  type Directory,
  type DirectoryService,
  encodeDirectory,
  MemoryDirectoryService,
} from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { digestOf, getAll, hexOf, put, ROOT, TREE } from "./directory-support.ts";
import type { Faults } from "./fault-plan.ts";
import { FaultyDirectoryService } from "./faulty-directory-service.ts";
import { FAR_FAULTS, resultOrFailure, type Tiers, withFaultAnywhere } from "./tier-faults.ts";

/** What {@link directoryTiersSuite} runs over. */
export interface DirectoryTiersSuiteOptions {
  /** Opens a service of two halves that writes to both, and disposes of neither. */
  open: (halves: { near: DirectoryService; far: DirectoryService }) => Promise<DirectoryService>;
  /** Opens a client of a server of a directory service, which is disposed of with it. */
  connect: (served: DirectoryService) => Promise<DirectoryService>;
}

const DIGESTS = TREE.map(digestOf);
/** The digests of the tree as the contract orders them, which differs between services. */
const inAnyOrder = (digests: readonly string[]) => digests.toSorted();

/** Something that is read, as digests of what came; `undefined` for a directory that is absent. */
type Reading = (service: DirectoryService) => Promise<readonly (string | undefined)[]>;

const hex = (directory: Directory | undefined) =>
  directory && encodeDirectory(directory).digest.hex;

const READINGS: readonly (readonly [string, Reading, readonly string[]])[] = [
  ["a directory", async (service) => [hex(await service.get(digestOf(ROOT)))], hexOf([ROOT])],
  ["directories", async (service) => (await service.getMany(DIGESTS)).map(hex), hexOf(TREE)],
  [
    "a tree",
    async (service) => inAnyOrder(await getAll(service, digestOf(ROOT))),
    inAnyOrder(hexOf(TREE)),
  ],
];

/**
 * Registers tests of a directory service of two halves whose far half is the client of a server at which something
 * goes wrong: what is read is right, or reading fails, and nothing is stored in part or as something else.
 */
export function directoryTiersSuite(
  name: string,
  { open, connect }: DirectoryTiersSuiteOptions,
): void {
  async function openTiers(trees: readonly (readonly Directory[])[], faults: Faults) {
    const [near, stored] = [new MemoryDirectoryService(), new MemoryDirectoryService()];
    for (const tree of trees) await put(stored, tree);
    const faulty = new FaultyDirectoryService(stored, faults, 1);
    const client = await connect(faulty);
    const service = await open({ near, far: client });
    return {
      service,
      near,
      stored,
      far: faulty,
      async [Symbol.asyncDispose]() {
        await service[Symbol.asyncDispose]();
        await client[Symbol.asyncDispose]();
      },
    } satisfies Tiers<DirectoryService>;
  }

  /** Expects of each directory that can be read that everything below it can, too. */
  async function expectWholeOrAbsent(service: DirectoryService) {
    for (const [i, digest] of DIGESTS.entries()) {
      const found = await service.get(digest);
      if (found === undefined) continue;
      expect(hex(found)).toBe(digest.hex);
      const below = inAnyOrder(await getAll(service, digest));
      expect(below).toEqual(inAnyOrder(await everythingBelow(TREE[i]!)));
    }
  }

  describe(`${name} with a far half that goes wrong once`, () => {
    describe.each(FAR_FAULTS)("and %s", (_, faults, codes) => {
      it.each(READINGS)("gives %s right, or fails", async (title, read, expected) => {
        const count = await withFaultAnywhere(
          (faults) => openTiers([TREE], faults),
          faults,
          async ({ service, near, far }) => {
            const found = await resultOrFailure(() => read(service), codes);
            if (found === "failed") expect(far.faults).toBe(1);
            else if (far.faults === 0) expect(found).toEqual(expected);
            else expectRightOrAbsent(found, expected, title === "a tree");
            far.heal();
            expect(await read(service)).toEqual(expected);
            await expectWholeOrAbsent(near);
          },
        );
        // Trees alone can be cut off.
        if (title === "a tree" || !("truncate" in faults)) expect(count).toBeGreaterThan(0);
      });
    });

    it("stores a tree in both halves, or fails", async () => {
      const count = await withFaultAnywhere(
        (faults) => openTiers([], faults),
        { fail: 1 },
        async ({ service, near, stored, far }) => {
          const outcome = await resultOrFailure(() => put(service, TREE), ["unavailable"]);
          if (outcome === "failed") expect(far.faults).toBe(1);
          far.heal();
          for (const each of [service, near, stored]) await expectWholeOrAbsent(each);
          await put(service, TREE);
          for (const each of [service, stored]) {
            expect(inAnyOrder(await getAll(each, digestOf(ROOT)))).toEqual(inAnyOrder(hexOf(TREE)));
          }
        },
      );
      expect(count).toBeGreaterThan(0);
    });
  });
}

/** Expects what is right, in which a directory that was damaged may be absent; of a tree, all of it may. */
function expectRightOrAbsent(
  found: readonly (string | undefined)[],
  expected: readonly string[],
  isTree: boolean,
): void {
  if (isTree && found.length === 0) return;
  expect(found.length).toBe(expected.length);
  for (const [i, digest] of found.entries()) {
    if (isTree || digest !== undefined) expect(digest).toBe(expected[i]);
  }
}

async function everythingBelow(root: Directory): Promise<string[]> {
  const memory = new MemoryDirectoryService();
  await put(memory, TREE);
  const digest: B3Digest = digestOf(root);
  return await getAll(memory, digest);
}
