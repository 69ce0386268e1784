import { once } from "node:events";
import { createReadStream, mkdirSync, writeFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { seededBytes } from "@tvix/conformance";
import { SigningKey } from "@tvix/store";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Daemon, embeddedIn, startDaemon, temporaryFolder } from "./harness.ts";
import { describeWithNix, type Nix } from "./nix-versions.ts";

/** What the upstream has: something that refers to a tree, and `other`; and what it has not. */
const EXPRESSION = `
  let sh = name: contents: derivation {
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo \${contents} $out > $out" ];
  }; in { built = sh "built" "\${./tree}"; other = sh "other" "contents";
       own = sh "own" "contents"; more = sh "more" "contents"; }
`;

describeWithNix("a cache in front of another one, and the client", (_version, open) => {
  const folder = temporaryFolder();
  const key = SigningKey.generate("upstream-1");
  let nix: Nix;
  let daemon: Daemon;
  /** What is fetched through the cache, and the SHA-256 of the NAR of each. */
  let paths: string;
  let hashes: string;

  /** The upstream: files that Nix wrote, unless they are answered otherwise. */
  let requests: string[] = [];
  let answer: (url: string, response: ServerResponse) => boolean = () => false;
  const upstream = createServer((request, response) => {
    requests.push(request.url!);
    if (answer(request.url!, response)) return;
    const file = createReadStream(join(nix.folder, "cache", request.url!));
    file.on("error", () => response.writeHead(404).end());
    file.pipe(response);
  });
  const nars = () => requests.filter((url) => url.startsWith("/nar/"));

  const start = async () => {
    const { port } = upstream.address() as AddressInfo;
    daemon = await startDaemon([
      ...embeddedIn(folder.path),
      ...["--listen-address=127.0.0.1:0", `--cache-object-addr=file://${folder.path}/objects`],
      `--upstream=http://127.0.0.1:${port}?trusted-public-keys=${encodeURIComponent(`${key.verifyingKey}`)}`,
    ]);
    return `http://${daemon.addresses[0]}`;
  };
  const hashesOf = () => `for p in ${paths}; do nix-store --dump $p | sha256sum; done`;
  const remove = () => `nix-store --delete ${paths} >&2; rm -rf $NIX_HOME/.cache/nix/binary-cache*`;
  const copy = (url: string) =>
    `nix copy --from ${url} ${paths} --option trusted-public-keys "${key.verifyingKey}" >&2`;

  beforeAll(async () => {
    nix = open(folder.path);
    const tree = join(nix.folder, "tree");
    mkdirSync(tree);
    writeFileSync(join(tree, "large"), seededBytes("pull-through", 3_000_000));
    writeFileSync(join(nix.folder, "expression.nix"), EXPRESSION);
    writeFileSync(join(nix.folder, "key"), key.toSecretText());
    const out = await nix.run(`
      nix-store --init
      out=$(nix-build --no-out-link expression.nix -A built)
      nix copy --to "file://$PWD/cache?compression=zstd&secret-key=$PWD/key" $out $(nix-build --no-out-link expression.nix -A other) >&2
      nix-store -qR $out
      nix-store --delete $(nix-store -q --referrers-closure $(nix-store -qR $out)) >&2
    `);
    paths = out.trim().split("\n").reverse().join(" ");
    upstream.listen(0, "127.0.0.1");
    await once(upstream, "listening");
  });

  afterAll(async () => {
    await daemon?.[Symbol.asyncDispose]();
    upstream.closeAllConnections();
    upstream.close();
    folder[Symbol.dispose]();
  });

  it("fetch what the upstream has, although the cache is killed in the middle", async () => {
    const killed = new Promise<void>((resolve) => {
      answer = (url, response) => {
        if (!url.startsWith("/nar/")) return false;
        createReadStream(join(nix.folder, "cache", url), { end: 1_000_000 }).pipe(response, {
          end: false,
        });
        setTimeout(() => {
          daemon.process.kill("SIGKILL");
          resolve();
        }, 200);
        return true;
      };
    });
    const interrupted = nix.run(`${copy(await start())} --option download-attempts 1`);
    await killed;
    await expect(interrupted).rejects.toThrow();
    answer = () => false;
    requests = [];
    const url = await start();
    // Two clients at once, of which one does without a store of its own.
    const narInfo = await fetch(`${url}/${paths.split(" ").at(-1)!.slice(11, 43)}.narinfo`);
    const narUrl = /^URL: (.*)$/m.exec(await narInfo.text())![1];
    const [out, bytes] = await Promise.all([
      nix.run(`${copy(url)}\n${hashesOf()}`),
      fetch(`${url}/${narUrl}`).then((response) => response.arrayBuffer()),
    ]);
    hashes = out;
    expect(bytes.byteLength).toBeGreaterThan(100);
    expect(hashes.trim().split("\n")).toHaveLength(2);
    expect(nars()).toHaveLength(2);
  });

  it("push what only they have, and below /local what the upstream has as well", async () => {
    const url = `http://${daemon.addresses[0]}`;
    const pushed = () =>
      daemon.log.filter(({ method, target, status }) => {
        return method === "PUT" && Number(status) < 300 && `${target}`.endsWith(".narinfo");
      }).length;
    const build = (name: string) => `$(nix-build --no-out-link expression.nix -A ${name})`;
    await nix.run(`nix copy --to ${url} ${build("own")} ${build("other")}`);
    await expect.poll(pushed).toBe(1); // its line may come after the end of the client
    await nix.run(`nix copy --to ${url}/local ${build("own")} ${build("other")}`);
    await expect.poll(pushed).toBe(2);
  });

  it("need no upstream for what was fetched, and build what they cannot fetch", async () => {
    const url = `http://${daemon.addresses[0]}`;
    upstream.closeAllConnections();
    await new Promise((resolve) => upstream.close(resolve));
    requests = [];
    expect(await nix.run(`${remove()}\n${copy(url)}\n${hashesOf()}`)).toBe(hashes);
    const out = await nix.run(`
      nix-build --no-out-link expression.nix -A more --option substituters ${url}
    `);
    expect(out).toContain("-more\n");
    expect(requests).toEqual([]);
  });
});
