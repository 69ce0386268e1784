import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, statSync, writeFileSync } from "node:fs";
import { createServer, get } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { encodeNixbase32, fingerprint, NarInfo, SigningKey, StorePath } from "@tvix/store";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  compositionIn,
  type Daemon,
  embeddedIn,
  startDaemon,
  startServing,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

describe.each(["daemon", "nar-bridge"] as const)("%s", (command) => {
  const folder = temporaryFolder();
  const socket = join(folder.path, "socket");
  const store = embeddedIn(join(folder.path, "store"));
  const key = SigningKey.generate("test-1");
  /** What the upstream was asked for. */
  const asked: string[] = [];
  const upstream = createServer(({ url = "" }, response) => {
    asked.push(url);
    response.writeHead(url === "/nix-cache-info" ? 200 : 404).end("StoreDir: /nix/store\n");
  });
  let storePath: StorePath;
  let before: Daemon;
  let daemon: Daemon;
  let url: string;

  beforeAll(async () => {
    writeFileSync(join(folder.path, "file"), "contents");
    writeFileSync(join(folder.path, "key"), key.toSecretText());
    await once(upstream.listen(0, "127.0.0.1"), "listening");
    const upstreamUrl = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
    const composition = join(folder.path, "composition.toml");
    const upstreams = `[[upstreams]]\nbase_url = "${upstreamUrl}/named"\n`;
    writeFileSync(composition, compositionIn(join(folder.path, "store")) + upstreams);
    const memory = throughDaemon("memory://");
    const [{ stdout }, started] = await Promise.all([
      tvixStore(["import", join(folder.path, "file"), ...store]),
      startDaemon(["-l", socket, ...memory]),
    ]);
    storePath = StorePath.parseAbsolute(stdout.trim());
    before = started;
    daemon = await startServing([
      ...[command, "-l", socket, "-l", "127.0.0.1:0", "--metrics-address=127.0.0.1:0"],
      ...["--unix-listen-unlink", "--unix-listen-chmod=640", "--shutdown-timeout=100ms"],
      ...["--cache-priority=17", "--cache-compression=none"],
      ...[`--signing-key-file=${folder.path}/key`, "--sign=served"],
      ...[`--upstream=${upstreamUrl}`, `--store-composition=${composition}`],
      "--upstream-absent-ttl=0",
      ...["--max-upload-size=1KiB", "--max-uploads=1", "--max-uploads-per-client=1"],
      "--header-timeout=300ms",
    ]);
    url = `http://${daemon.addresses.find((address) => address.startsWith("127."))}`;
  });
  afterAll(async () => {
    await daemon?.[Symbol.asyncDispose]();
    await before?.[Symbol.asyncDispose]();
    upstream.close();
    folder[Symbol.dispose]();
  });

  const narInfo = async () => {
    const response = await fetch(`${url}/${encodeNixbase32(storePath.hashPart)}.narinfo`);
    return NarInfo.parse(await response.text());
  };
  const put = (nar: Uint8Array<ArrayBuffer>) => {
    const hash = encodeNixbase32(createHash("sha256").update(nar).digest());
    return fetch(`${url}/nar/${hash}.nar`, { method: "PUT", body: nar });
  };
  const dial = () => connect(Number(new URL(url).port), "127.0.0.1").on("error", () => undefined);

  it("takes a socket of another with --unix-listen-unlink, and only then", async () => {
    const path = storePath.toAbsolutePath();
    const refused = await tvixStore([command, "-l", socket, ...throughDaemon("memory://")]);
    expect(refused).toMatchObject({ status: 1, stderr: expect.stringContaining(socket) });
    const served = get({ socketPath: socket, path: `/${path.slice(11, 11 + 32)}.narinfo` });
    const [response] = await once(served, "response");
    expect(await text(response)).toContain(`StorePath: ${path}\n`);
    expect(statSync(socket).mode & 0o777).toBe(0o640);
    if (command !== "daemon") return; // the only one that serves gRPC
    const found = await tvixStore(["path-info", path, ...throughDaemon(`grpc+unix://${socket}`)]);
    expect(found).toEqual({ status: 0, stdout: `${path}\n`, stderr: "" });
  });

  it("serves metrics on an address of their own", async () => {
    const line = daemon.log.find(({ msg }) => msg === "serving metrics");
    const metrics = await fetch(`http://${line?.addresses}/metrics`);
    expect(await metrics.text()).toContain("tvix_build_info");
    expect((await fetch(`${url}/metrics`)).status).toBe(404);
  });

  it("tells clients which cache to ask first", async () => {
    const info = await fetch(`${url}/nix-cache-info`);
    expect(await info.text()).toContain("Priority: 17\n");
  });

  it("announces NARs without compression, and signs what it serves but not what is stored", async () => {
    const served = await narInfo();
    expect(served.compression).toBe("none");
    const [signature] = served.signatures;
    expect(key.verifyingKey.verify(fingerprint(served), signature!)).toBe(true);
    const stored = await tvixStore(["path-info", "--sigs", `${storePath}`, ...store]);
    expect(stored.stdout).not.toContain("test-1:");
  });

  it("asks upstreams of options and of the composition, anew where --upstream-absent-ttl is 0", async () => {
    const name = `/${"0".repeat(32)}.narinfo`;
    for (let i = 0; i < 2; i++) expect((await fetch(url + name)).status).toBe(404);
    for (const url of [name, `/named${name}`]) {
      expect(asked.filter((one) => one === url)).toHaveLength(2);
    }
  });

  it("refuses what is too large, and has uploads wait for those before them", async () => {
    expect((await put(new Uint8Array(1025))).status).toBe(413);
    const nar = await (await fetch(`${url}/${(await narInfo()).url}`)).arrayBuffer();
    const first = dial();
    first.write(
      `PUT /nar/${"0".repeat(52)}.nar HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n`,
    );
    expect(`${(await once(first, "data"))[0]}`).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    const ping = () => fetch(`${url}/nix-cache-info`).then((response) => response.text());
    let isAnswered = false;
    const second = put(new Uint8Array(nar)).finally(() => {
      isAnswered = true;
    });
    for (let i = 0; i < 10; i++) await ping();
    expect(isAnswered).toBe(false);
    first.destroy();
    expect((await second).status).toBe(201);
  });

  it("ends connections that send no complete header within --header-timeout", async () => {
    const silent = dial();
    silent.write("GET / HTTP/1.1\r\n");
    expect(await text(silent)).toMatch(/^(HTTP\/1\.1 408 .*)?/);
  });

  it("cuts what is in flight at the end of --shutdown-timeout", async () => {
    const upload = dial();
    upload.write(
      `PUT /nar/${"0".repeat(52)}.nar HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n`,
    );
    expect(`${(await once(upload, "data"))[0]}`).toContain("100 Continue");
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
    const cut = daemon.log.filter(({ msg }) => `${msg}`.startsWith("calls in flight cut"));
    expect(cut).toHaveLength(1);
  });

  it("serves by several processes, makes stores for a group, and ends uploads that stand still", async () => {
    const place = mkdtempSync(join(folder.path, "workers-"));
    const store = join(place, "store");
    await using serving = await startServing([
      ...[command, "--listen-address=127.0.0.1:0", "--workers=2", "--store-mode=0750"],
      ...["--body-timeout=200ms", `--cache-object-addr=sqlite://${place}/objects`],
      ...embeddedIn(store),
    ]);
    expect(statSync(store).mode & 0o777).toBe(0o750);
    const port = Number(serving.addresses[0]!.split(":")[1]);
    const ask = async () => {
      const request = get({ port, host: "127.0.0.1", path: "/nix-cache-info", agent: false });
      const [response] = await once(request, "response");
      await text(response);
    };
    const processes = async () => {
      await ask();
      return new Set(serving.log.filter(({ msg }) => msg === "request").map(({ pid }) => pid)).size;
    };
    await expect.poll(processes, { timeout: 10_000 }).toBe(2);
    const still = connect(port, "127.0.0.1");
    still.write(`PUT /nar/${"0".repeat(52)}.nar HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n`);
    expect(await text(still)).toBe(""); // cut; by default, it would take two minutes
  });
});
