import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { join } from "node:path";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { collectBytes, decompress } from "@tvix/castore";
import { encodeNixbase32, NarInfo, StorePath } from "@tvix/store";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Daemon,
  embeddedIn,
  startDaemon,
  startNarBridge,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

const folder = temporaryFolder();
const ANYWHERE = "--listen-address=127.0.0.1:0";
const running: Daemon[] = [];
let storePath: StorePath;

/** Where the binary cache is served. */
const SERVERS = ["daemon", "nar-bridge"];
const baseUrl = (server: string) => `http://${running[SERVERS.indexOf(server)]!.addresses[0]}`;

beforeAll(async () => {
  const file = join(folder.path, "file");
  writeFileSync(file, "contents");
  const objects = `--cache-object-addr=file://${folder.path}/objects`;
  const daemon = await startDaemon([
    ...embeddedIn(folder.path),
    ...[ANYWHERE, objects, "--cache-priority=12"],
  ]);
  running.push(daemon);
  const address = `grpc+http://${daemon.addresses[0]}`;
  running.push(await startNarBridge([...throughDaemon(address), ANYWHERE, objects]));
  const { stdout } = await tvixStore(["import", file, ...throughDaemon(address)]);
  storePath = StorePath.parseAbsolute(stdout.trim());
});

afterAll(async () => {
  for (const server of running.reverse()) await server[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

describe.each(SERVERS)("the binary cache of %s", (server) => {
  it("tells how to use it", async () => {
    const response = await fetch(`${baseUrl(server)}/nix-cache-info`);
    const priority = server === "daemon" ? 12 : 39;
    const expected = `StoreDir: /nix/store\nWantMassQuery: 1\nPriority: ${priority}\n`;
    expect(await response.text()).toBe(expected);
    expect(response.headers.get("content-type")).toBe("text/x-nix-cache-info");
  });

  it("describes store paths, and says which are not there", async () => {
    const url = (hashPart: Uint8Array) => `${baseUrl(server)}/${encodeNixbase32(hashPart)}.narinfo`;
    const response = await fetch(url(storePath.hashPart));
    const narInfo = NarInfo.parse(await response.text());
    expect(narInfo).toMatchObject({ storePath, narSize: 120n, compression: "zstd" });
    const file = Buffer.from(
      await (await fetch(`${baseUrl(server)}/${narInfo.url}`)).arrayBuffer(),
    );
    expect(BigInt(file.length)).toBe(narInfo.fileSize);
    const nar = await collectBytes(decompress(Readable.from([file]), "zstd"));
    const narSha256 = new Uint8Array(createHash("sha256").update(nar).digest());
    expect(narSha256).toEqual(new Uint8Array(narInfo.narSha256));
    const head = await fetch(url(storePath.hashPart), { method: "HEAD" });
    expect(head.headers.get("content-length")).toBe(response.headers.get("content-length"));
    expect(await head.text()).toBe("");
    expect((await fetch(url(new Uint8Array(20)))).status).toBe(404);
    expect((await fetch(`${baseUrl(server)}/nonsense.narinfo`)).status).toBe(400);
  });

  it("refuses paths and methods that it does not have", async () => {
    const unknown = await fetch(`${baseUrl(server)}/index.html`);
    expect([unknown.status, await unknown.text()]).toEqual([
      404,
      "There is nothing at this path\n",
    ]);
    const wrong = await fetch(`${baseUrl(server)}/nix-cache-info`, { method: "DELETE" });
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "GET, HEAD, PUT"]);
  });

  it("refuses an upload without a body, and takes further requests", async () => {
    const { hostname, port } = new URL(baseUrl(server));
    const socket = connect(Number(port), hostname);
    const path = `/${encodeNixbase32(storePath.hashPart)}.narinfo`;
    socket.write(`PUT ${path} HTTP/1.1\r\nHost: cache\r\n\r\n`);
    socket.write("GET /nix-cache-info HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n\r\n");
    const answers = (await text(socket)).match(/HTTP\/1.1 \d+/g);
    expect(answers).toEqual(["HTTP/1.1 400", "HTTP/1.1 200"]);
  });

  it("is served over HTTP/2 as well", async () => {
    const session = connectHttp2(baseUrl(server));
    const stream = session.request({ ":path": "/nix-cache-info" });
    expect(await text(stream)).toContain("StoreDir: /nix/store\n");
    session.close();
  });
});
