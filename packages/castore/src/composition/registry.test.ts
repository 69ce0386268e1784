import { describe, expect, it } from "vitest";
import { openFromRegistry, type ServiceRegistry } from "./registry.ts";

const failure = new Error("cannot be opened");
const registry: ServiceRegistry<string> = {
  kind: "test service",
  openers: {
    echo: async ({ text, path }) => `${text} ${path}`,
    broken: async () => {
      throw failure;
    },
    waiting: async (_, options) => {
      options?.signal?.throwIfAborted();
      return `${options?.signal !== undefined}`;
    },
  },
};

describe("openFromRegistry", () => {
  it("opens a service by the scheme of its address", async () => {
    expect(await openFromRegistry(registry, "echo:///there")).toBe("echo:///there /there");
  });

  it("hands on the signal, and whatever opening throws", async () => {
    const { signal } = new AbortController();
    expect(await openFromRegistry(registry, "waiting://", { signal })).toBe("true");
    await expect(openFromRegistry(registry, "broken://")).rejects.toBe(failure);
  });

  it("rejects with the reason when it is cancelled before, whatever the address", async () => {
    const reason = new Error("enough");
    const options = { signal: AbortSignal.abort(reason) };
    for (const address of ["echo://", "no address"]) {
      await expect(openFromRegistry(registry, address, options)).rejects.toBe(reason);
    }
  });

  it.each([
    ["other://", 'expected the scheme of a test service (echo, broken, waiting), found "other"'],
    ["constructor://", 'found "constructor"'],
    ["hasown://", 'found "hasown"'],
    ["redb:///path", 'scheme "redb" is not offered, use "pack:///path" for blobs'],
    ["sled:///path", '"sqlite:///path" for directories and path infos'],
    ["no address", "expected a URL"],
  ])("refuses %s, and says what there is", async (address, reason) => {
    await expect(openFromRegistry(registry, address)).rejects.toMatchObject({
      name: "CastoreError",
      code: "invalid_argument",
      message: expect.stringContaining(reason),
    });
  });

  it("opens what another implementation has under that name, once it is in the registry", async () => {
    const own = { ...registry, openers: { redb: async () => "ours" } };
    expect(await openFromRegistry(own, "redb:///path")).toBe("ours");
  });
});
