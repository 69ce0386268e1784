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
    ["cache.nixos.org", /expected a URL/],
    ["s3://bucket", /base_url/],
    ["https://user:secret@host", /expected no credentials/],
    ["https://host?priority=-1", /priority/],
    ["https://host?prio=1", /prio/],
    ["https://host?trusted-public-keys=nonsense", /Cannot use public key/],
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
  it("takes tables", () => {
    const tables = [
      { base_url: "https://cache.nixos.org", public_keys: KEYS.map(String), priority: 1 },
      { base_url: "http://host" },
    ];
    const [first, second] = parseUpstreams(tables);
    expect(first?.publicKeys?.map(String)).toEqual(KEYS.map(String));
    expect([first?.priority, second?.baseUrl]).toEqual([1, "http://host"]);
  });

  it("refuses anything else, and names the table", () => {
    expect(() => parseUpstreams({ base_url: "https://host" })).toThrow(/\[\[upstreams\]\]: .*list/);
    const tables = [{ base_url: "https://host" }, { base_url: "https://host", key: 1 }];
    expect(() => parseUpstreams(tables)).toThrow(/\[\[upstreams\]\] number 2: .*key/);
  });
});
