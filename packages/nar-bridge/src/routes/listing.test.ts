import { symlinkTarget } from "@tvix/castore";
import { encodeNixbase32, listNar } from "@tvix/store";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { addTree, type BridgeFixture, hashOf, startBridge } from "../../test/bridge-fixture.ts";

let bridge: BridgeFixture;
beforeAll(async () => {
  bridge = await startBridge();
});
afterAll(() => bridge[Symbol.asyncDispose]());

const ABSENT = encodeNixbase32(new Uint8Array(20));

describe("a listing", () => {
  it("tells what is in a store path", async () => {
    const pathInfo = await addTree(bridge.services, "tree", {
      bin: { a: "b" },
      link: { target: "bin" },
    });
    const response = await fetch(`${bridge.url}/${hashOf(pathInfo)}.ls`);
    expect(response.headers.get("content-type")).toBe("application/json");
    const expected = await listNar(pathInfo.node, bridge.services.directoryService);
    expect(await response.json()).toEqual(JSON.parse(JSON.stringify(expected)));
  });

  it("is absent where the store path is, and where it cannot be written as JSON", async () => {
    expect((await fetch(`${bridge.url}/${ABSENT}.ls`)).status).toBe(404);
    const pathInfo = await addTree(bridge.services, "strange", { a: "b" });
    const node = { type: "symlink", target: symlinkTarget(Buffer.of(0xff)) } as const;
    await bridge.services.pathInfoService.put({ ...pathInfo, node });
    const response = await fetch(`${bridge.url}/${hashOf(pathInfo)}.ls`);
    expect([response.status, await response.text()]).toEqual([
      ...[404, expect.stringContaining("expected UTF-8")],
    ]);
  });
});

describe("a look-up of many store paths", () => {
  const ask = (body: string) => fetch(`${bridge.url}/get-missing`, { method: "POST", body });

  it("tells which are absent, in their order", async () => {
    const here = hashOf(await addTree(bridge.services, "here", "contents"));
    const many = [ABSENT, here, `${"0".repeat(31)}1`, here];
    const response = await ask(JSON.stringify({ hashParts: many }));
    expect(await response.json()).toEqual({ missing: [many[0], many[2]] });
    expect(await (await ask('{"hashParts":[]}')).json()).toEqual({ missing: [] });
  });

  it.each([
    ["no JSON", "{", 400],
    ["something else", '["a"]', 400],
    ["no hash part", '{"hashParts":["e"]}', 400],
    ["too many", JSON.stringify({ hashParts: Array(16_385).fill(ABSENT) }), 400],
    ["too long", " ".repeat(1024 * 1024 + 1), 413],
  ])("is refused for %s", async (_, body, status) => {
    const response = await ask(body);
    expect([response.status, await response.text()]).toEqual([
      ...[status, expect.stringMatching(/^Cannot look up store paths: /)],
    ]);
  });
});
