import { SigningKey } from "@tvix/store";
import { describe, expect, it } from "vitest";
import { parseUpstream, parseUpstreams } from "./upstream-config.ts";

const KEYS = ["one-1", "two-1"].map((name) => SigningKey.generate(name).verifyingKey);

describe("parseUpstream", () => {
  it("takes a URL alone", () => {
    expect(parseUpstream("https://cache.nixos.org")).toEqual({
      baseUrl: "https://cache.nixos.org",
    });
  });

  it("takes every key of the query, and keys of Nix as they are written", () => {
    const keys = KEYS.join("%20");
    const query = `trusted-public-keys=${keys}&priority=10&timeout_ms=100&token_file=/token`;
    const { publicKeys, ...rest } = parseUpstream(`http://host:1234/path?${query}`);
    expect(publicKeys?.map(String)).toEqual(KEYS.map(String));
    expect(rest).toEqual({
      baseUrl: "http://host:1234/path",
      priority: 10,
      timeoutMs: 100,
      tokenFile: "/token",
    });
  });

  it("trusts nobody where the list of keys is empty", () => {
    expect(parseUpstream("https://host?trusted-public-keys=").publicKeys).toEqual([]);
  });

  it.each([
    ["cache.nixos.org", /did you mean "https:\/\/cache.nixos.org"\?/],
    ["s3://bucket", /base_url/],
    ["https://user:secret@host", /expected no credentials/],
    ["https://host?priority=-1", /priority/],
    ["https://host?priorty=1", /unknown key "priorty": did you mean "priority"\?/],
    [
      "https://host?trusted-public-keys=nonsense",
      /"trusted-public-keys": expected a name, a colon, and 32 bytes/,
    ],
    ["https://host?base_url=https://other", /base_url/],
  ])("refuses %s", (text, message) => {
    expect(() => parseUpstream(text)).toThrow(message);
    expect(() => parseUpstream(text)).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
    expect(() => parseUpstream(text)).not.toThrow(/secret/);
  });
});

describe("parseUpstreams", () => {
  const parse = (text: string) => parseUpstreams({ name: "file", text });

  it("takes tables", async () => {
    const [first, second] = await parse(`
      [[upstreams]]
      base_url = "https://cache.nixos.org"
      public_keys = ${JSON.stringify(KEYS.map(String))}
      priority = 1
      [[upstreams]]
      base_url = "http://host"
    `);
    expect(first?.publicKeys?.map(String)).toEqual(KEYS.map(String));
    expect([first?.priority, second?.baseUrl]).toEqual([1, "http://host"]);
  });

  it("refuses anything else, and says where", async () => {
    const table = '[upstreams]\nbase_url = "https://host"';
    await expect(parse(table)).rejects.toThrow("line 1, column 1: [[upstreams]]: expected array");
    const second = '[[upstreams]]\nbase_url = "https://host"\n[[upstreams]]\nbase_ulr = "http://h"';
    await expect(parse(second)).rejects.toThrow(/line [34], column 1: \[\[upstreams\]\]: /);
  });
});
