import type { DirectoryService } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { digestOf, getAll, put, ROOT, TREE } from "./directory-support.ts";

/** That two services on one store see, and do not disturb, each other. */
export function sharedDirectoryTests(
  name: string,
  createPair: () => Promise<readonly [DirectoryService, DirectoryService]>,
): void {
  describe(`${name} shares its store`, () => {
    it("gives what another one put before it was closed", async () => {
      const [first, second] = await createPair();
      await using reader = second;
      {
        await using writer = first;
        await put(writer, TREE);
        expect((await getAll(reader, digestOf(ROOT))).length).toBe(TREE.length);
      }
      expect((await getAll(reader, digestOf(ROOT))).length).toBe(TREE.length);
    });

    it("takes the same trees as another one at the same time", async () => {
      const [first, second] = await createPair();
      await using other = second;
      await using one = first;
      const putters = Array.from({ length: 24 }, (_, i) => put(i % 2 ? one : other, TREE));
      for (const root of await Promise.all(putters)) {
        expect(root.equals(digestOf(ROOT))).toBe(true);
      }
      for (const service of [one, other]) {
        expect((await getAll(service, digestOf(ROOT))).length).toBe(TREE.length);
      }
    });
  });
}
