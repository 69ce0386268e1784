import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { proxyFor } from "./proxy.ts";

const NAMES = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

beforeEach(() => {
  for (const name of NAMES) {
    vi.stubEnv(name, undefined);
    vi.stubEnv(name.toUpperCase(), undefined);
  }
});

afterEach(() => vi.unstubAllEnvs());

const PROXY = "http://proxy.example:3128";

// What curl 7.88 does with the same environment and the same URLs, seen with `curl -v`.
describe("proxyFor", () => {
  it.each<[string, Record<string, string>, string | undefined]>([
    ["http://host/", {}, undefined],
    ["http://host/", { http_proxy: PROXY }, PROXY],
    ["https://host/", { http_proxy: PROXY }, undefined],
    ["https://host/", { https_proxy: PROXY }, PROXY],
    ["https://host/", { HTTPS_PROXY: PROXY }, PROXY],
    ["http://host/", { https_proxy: PROXY }, undefined],
    ["http://host/", { all_proxy: PROXY }, PROXY],
    ["https://host/", { ALL_PROXY: PROXY }, PROXY],
    ["https://host/", { all_proxy: "http://other:1", https_proxy: PROXY }, PROXY],
    ["https://host/", { https_proxy: "proxy.example:3128" }, PROXY],
    ["http://host/", { all_proxy: "proxy.example:3128" }, PROXY],
    ["http://host/", { http_proxy: "" }, undefined],
    ["http://host/", { all_proxy: PROXY, no_proxy: "host" }, undefined],
    ["http://host/", { all_proxy: PROXY, NO_PROXY: "other,host" }, undefined],
    ["http://a.host/", { all_proxy: PROXY, no_proxy: ".host" }, undefined],
    ["http://a.host/", { all_proxy: PROXY, no_proxy: "host" }, undefined],
    ["http://ahost/", { all_proxy: PROXY, no_proxy: "host" }, PROXY],
    ["http://host/", { all_proxy: PROXY, no_proxy: "*" }, undefined],
    ["http://127.0.0.1:8000/", { all_proxy: PROXY, no_proxy: "127.0.0.1" }, undefined],
  ])("reaches %s with %j through %s", (url, env, proxy) => {
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    expect(proxyFor(url)).toBe(proxy);
  });

  it("refuses a proxy of another kind, and shows no password", () => {
    vi.stubEnv("all_proxy", "socks5://user:secret@proxy:1080");
    let message = "";
    try {
      proxyFor("http://host/");
    } catch (error) {
      message = (error as Error).message;
    }
    expect(message).toContain('found "socks5://...@proxy:1080"');
    expect(message).not.toContain("secret");
  });
});
