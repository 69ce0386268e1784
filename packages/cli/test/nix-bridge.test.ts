import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { seededBytes } from "@tvix/conformance";
import { SigningKey } from "@tvix/store";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Daemon, embeddedIn, startDaemon, temporaryFolder } from "./harness.ts";
import { describeWithNix, type Nix } from "./nix-versions.ts";
import { startTamperingProxy, type TamperingProxy } from "./tampering-proxy.ts";

const COMPRESSIONS = ["none", "xz", "zstd", "bzip2", "gzip", "br"] as const;

/** Something for each compression that refers to itself and to a tree, and a content-addressed derivation. */
const EXPRESSION = `
  let
    sh = name: contents: more: derivation ({
      inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
      args = [ "-c" "echo building \${name}; mkdir $out; echo \${contents} > $out/file; ln -s file $out/link" ];
    } // more);
    addressed = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
  in {
    ${COMPRESSIONS.map((name) => `by-${name} = sh "by-${name}" "\${./tree} $out" {};`).join(" ")}
    raced = sh "raced" "$out" {};
    corrupt = sh "corrupt" "contents" {};
    addressed = sh "addressed" "contents" addressed;
  }
`;

describeWithNix("the binary cache and the client", (_version, open) => {
  const folder = temporaryFolder();
  const key = SigningKey.generate("test-1");
  let nix: Nix;
  let daemon: Daemon;
  let proxy: TamperingProxy;
  let url: string;
  /** Store paths of what is built, by attribute. */
  let paths: Record<string, string>;
  /** All store paths that are pushed, and the SHA-256 of the NAR of each. */
  let pushed: string;
  let hashes: string;

  const hashesOf = `for p in $PATHS; do nix-store --dump $p | sha256sum; done`;
  const forget = "rm -rf $NIX_HOME/.cache/nix/binary-cache*";
  const requests = (pattern: RegExp) =>
    daemon.log.filter(({ target }) => typeof target === "string" && pattern.test(target));

  beforeAll(async () => {
    nix = open(folder.path);
    const tree = join(nix.folder, "tree");
    mkdirSync(join(tree, "sub"), { recursive: true });
    writeFileSync(join(tree, "sub/large"), seededBytes("nix", 3_000_000));
    writeFileSync(join(tree, "run"), "#!/bin/sh\n", { mode: 0o755 });
    symlinkSync("sub/nowhere", join(tree, "link"));
    writeFileSync(join(nix.folder, "expression.nix"), EXPRESSION);
    writeFileSync(join(nix.folder, "key"), key.toSecretText());
    daemon = await startDaemon([
      ...embeddedIn(folder.path),
      "--listen-address=127.0.0.1:0",
      `--cache-object-addr=sqlite://${folder.path}/objects`,
    ]);
    url = `http://${daemon.addresses[0]}`;
    proxy = await startTamperingProxy(daemon.addresses[0]!);
    const out = await nix.run(`
      nix-store --init
      nix-build --no-out-link expression.nix >&2
      nix-instantiate --eval --strict --json --read-write-mode -E '
        builtins.mapAttrs (_: value: value.outPath) (removeAttrs (import ./expression.nix) [ "addressed" ])'
    `);
    paths = JSON.parse(out);
    const built = COMPRESSIONS.map((name) => paths[`by-${name}`]).join(" ");
    const closure = await nix.run(`nix-store -qR ${built}`);
    pushed = closure.trim().split("\n").join(" ");
    hashes = await nix.run(`PATHS="${pushed}"; ${hashesOf}`);
  });

  afterAll(async () => {
    await proxy[Symbol.asyncDispose]();
    await daemon[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  it("push in every compression, and get the same back under the names that were pushed and announced", async () => {
    const copies = COMPRESSIONS.map(
      (name) =>
        `nix copy --to "${url}?compression=${name}&secret-key=$PWD/key" ${paths[`by-${name}`]}`,
    );
    const fetchAll = (name: string) =>
      `nix copy --from ${url} ${pushed} --option trusted-public-keys "${name}"`;
    // Derivations refer to the tree as well.
    const remove = `nix-store --delete $(nix-store -q --referrers-closure ${pushed}) >&2`;
    await nix.run(copies.join("\n"));
    // Nix remembers the narinfos that it pushed, with their names.
    const names = await nix.run(`
      ${remove}
      ${fetchAll(`${key.verifyingKey}`)}
      PATHS="${pushed}"; ${hashesOf}
    `);
    expect(names).toBe(hashes);
    const announced = await nix.run(`
      ${remove}
      ${forget}
      ! ${fetchAll(`${SigningKey.generate("test-1").verifyingKey}`)} 2> refusal || exit 1
      grep -q "signature" refusal
      ${fetchAll(`${key.verifyingKey}`)}
      PATHS="${pushed}"; ${hashesOf}
    `);
    expect(announced).toBe(hashes);
    expect(requests(/^\/nar\/.*hash=/).length).toBeGreaterThan(0);
    for (const ending of ["", ".xz", ".zst", ".bz2", ".br"]) {
      const name = new RegExp(`^/nar/[^?]*\\.nar${ending.replace(".", "\\.")}$`);
      const got = requests(name).filter(({ method, status }) => method === "GET" && status === 200);
      expect([ending, got.length > 0]).toEqual([ending, true]);
    }
  });

  it("have a build take from the cache what is there", async () => {
    const path = paths["by-zstd"];
    const options = `--option substituters ${url} --option trusted-public-keys "${key.verifyingKey}"`;
    const log = await nix.run(`
      nix-store --delete ${path} >&2
      ${forget}
      nix-build --no-out-link expression.nix -A by-zstd ${options} 2>&1
    `);
    expect(log).toContain(`copying path '${path}' from '${url}'`);
    expect(log).not.toContain("building by-zstd");
  });

  it("show what is in the cache", async () => {
    const path = paths["by-xz"]!;
    const out = await nix.run(`
      nix store ls --store ${url} -R ${path}
      echo ---
      nix store cat --store ${url} ${path}/file
      echo ---
      nix path-info --store ${url} --json --closure-size ${path} 2>/dev/null
    `);
    const [listing = "", contents = "", info = ""] = out.split("---\n");
    expect(listing.trim().split("\n")).toEqual(["./file", "./link"]);
    expect(contents).toContain(`${path}\n`);
    const found = Object.values(JSON.parse(info))[0] as Record<string, unknown>;
    expect(found.closureSize).toBeGreaterThan(3_000_000);
    expect(found.references).toContain(path);
  });

  it("keep the log of a build", async () => {
    const path = paths["by-xz"];
    const log = await nix.run(`
      nix store copy-log --to ${url} $(nix-instantiate expression.nix -A by-xz)
      rm -rf ${nix.folder}/var/log/nix
      nix log --store ${url} ${path}
    `);
    expect(log).toBe("building by-xz\n");
  });

  it("know what a content-addressed derivation was built to", async () => {
    const log = await nix.run(`
      path=$(nix-build --no-out-link expression.nix -A addressed)
      nix copy --to ${url} -f expression.nix addressed
      nix-store --delete $path >&2
      ${forget}
      nix-build --no-out-link expression.nix -A addressed 2>&1 --option substituters ${url} --option require-sigs false
      test "$(cat $path/file)" = contents
    `);
    expect(log).toMatch(/copying path '[^']*-addressed' from/);
    const got = requests(/^\/realisations\//).filter(({ method }) => method === "GET");
    expect(got.at(-1)).toMatchObject({ status: 200 });
  });

  it("push one path at the same time", async () => {
    const path = paths.raced;
    await nix.run(`
      for i in 1 2 3; do HOME=$PWD/home-$i nix copy --to "${url}?compression=xz" ${path} & pids="$pids $!"; done
      for pid in $pids; do wait $pid; done
      nix-store --delete ${path} >&2
      ${forget}
      nix copy --from ${url} ${path} --no-check-sigs
      test -e ${path}/link
    `);
  });

  it("leave nothing of a push that arrives corrupt", async () => {
    const path = paths.corrupt;
    proxy.onRequestData = ({ method, url = "" }, data) => {
      if (method !== "PUT" || !url.startsWith("/nar/")) return data;
      const other = Buffer.from(data);
      other[other.length >> 1]! ^= 1;
      return other;
    };
    const push = `nix copy --to "${proxy.url}?compression=none" ${path}`;
    await expect(nix.run(push)).rejects.toThrow();
    const refused = proxy.seen.filter(({ method }) => method === "PUT").at(-1)!;
    expect(refused.status).toBe(400);
    expect((await fetch(`${url}${refused.url}`, { method: "HEAD" })).status).toBe(404);
    const hash = path!.slice("/nix/store/".length).split("-", 1)[0];
    expect((await fetch(`${url}/${hash}.narinfo`)).status).toBe(404);
    proxy.onRequestData = (_, data) => data;
    await nix.run(`${forget}; ${push}`);
    expect((await fetch(`${url}/${hash}.narinfo`)).status).toBe(200);
  });

  it("go on with a download that broke off", async () => {
    const tree = pushed.split(" ").find((path) => path.endsWith("-tree"))!;
    let breaks = 2;
    proxy.breaksAfter = ({ method, url = "" }) => {
      if (method !== "GET" || !url.startsWith("/nar/") || breaks === 0) return undefined;
      breaks -= 1;
      return 1_000_000;
    };
    const hash = await nix.run(`
      nix-store --delete ${tree} $(nix-store -q --referrers-closure ${tree}) >&2
      nix copy --from ${proxy.url} ${tree} --no-check-sigs
      nix-store --dump ${tree} | sha256sum
    `);
    expect(hashes.split("\n")).toContain(hash.trim());
    const ranges = proxy.seen.filter(({ range }) => range !== undefined);
    expect(ranges.map(({ status }) => status)).toEqual([206, 206]);
    expect(breaks).toBe(0);
  });
});
