import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Daemon, embeddedIn, startDaemon, temporaryFolder } from "./harness.ts";

/** How many malformed requests are sent: 100,000 take a minute. */
const REQUESTS = Number(process.env.TVIX_FUZZ_REQUESTS ?? 5_000);
const CONNECTIONS = 8;

/** How long an answer may take, in milliseconds: a server that does not answer hangs. */
const ANSWER_MS = 20_000;

/** Limit of the memory of the daemon, in KiB. */
const MAX_MEMORY_KIB = 256 * 1024;

/** Statuses beyond 499 that are no failure of the server: it does not know a method, or a version of HTTP. */
const UNKNOWN_TO_SERVERS = [501, 505];

class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** A number from 0 up to `limit`, without it. */
  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }
}

const HASH = "00bgd045z0d4icpbc2yyz4gx48ak44la";
const NAR_HASH = "0".repeat(52);

const PATHS = [
  "/",
  "/nix-cache-info",
  `/${HASH}.narinfo`,
  `/${HASH}.ls`,
  `/nar/${NAR_HASH}.nar`,
  `/nar/${NAR_HASH}.nar.xz?hash=${HASH}`,
  `/nar/${NAR_HASH}.nar.zst`,
  "/nar/tvix-castore/IiQKIA?narsize=1",
  `/log/${HASH}-x.drv`,
  `/realisations/sha256:${"0".repeat(64)}!out.doi`,
  `/realisations/sha256:${"0".repeat(64)}!${"long_".repeat(40)}.doi`,
  `/build-trace-v2/${HASH}-x.drv/out.doi`,
  "/debuginfo/abcdef.debug",
  `/serve/${HASH}/bin/x`,
  "/get-missing",
  "/tvix.castore.v1.BlobService/Stat",
];

const PARTS = [
  "..",
  ".",
  "%2e%2e",
  "%2f",
  "%00",
  "%",
  "%zz",
  "\\",
  "//",
  "?",
  "#",
  "%ff",
  ":",
  "*",
];

const METHODS = [
  "GET",
  "HEAD",
  "PUT",
  "PUT",
  "PUT",
  "POST",
  "DELETE",
  "PATCH",
  "OPTIONS",
  "get",
  "X",
];

const HEADERS: readonly ((random: Random) => string)[] = [
  (random) => `Range: bytes=${random.below(1e9)}-${random.below(1e9)}`,
  () => `Range: bytes=${"0-,".repeat(300)}`,
  () => "Range: bytes=99999999999999999999-",
  () => 'If-None-Match: ,,,"',
  () => "Content-Encoding: xz",
  () => "Content-Encoding: zstd, br",
  () => "Content-Encoding: nonsense",
  () => "Expect: 100-continue",
  () => "Expect: something",
  () => "Upgrade: h2c\r\nConnection: Upgrade",
  () => "Content-Type: application/grpc",
  () => "Content-Type: application/proto",
  () => "Authorization: Bearer x",
  (random) => `X-Long: ${"x".repeat(random.below(70_000))}`,
  (random) =>
    `X-Bytes: ${random
      .bytes(20)
      .toString("latin1")
      .replace(/[\r\n]/g, "")}`,
  () => "Transfer-Encoding: gzip",
  () => "Transfer-Encoding: chunked, identity",
  () => "Content-Length: -1",
  () => "Content-Length: 1e3",
  () => "Content-Length: 99999999999999999999",
  () => " folded: x",
  () => "no colon",
  () => "X : y",
];

const NARINFO = `StorePath: /nix/store/${HASH}-x
URL: nar/${NAR_HASH}.nar
Compression: none
NarHash: sha256:${NAR_HASH}
NarSize: 120
References: ${HASH}-x
`;

const NAR = Buffer.from(
  "DQAAAAAAAABuaXgtYXJjaGl2ZS0xAAAAAQAAAAAAAAAoAAAAAAAAAAQAAAAAAAAAdHlwZQAAAAAHAAAAAAAAAHJlZ3VsYXIACAAAAAAAAABjb250ZW50cwgAAAAAAAAAY29udGVudHMBAAAAAAAAACkAAAAAAAAA",
  "base64",
);

const BODIES: readonly ((random: Random) => Buffer)[] = [
  () => Buffer.alloc(0),
  (random) => random.bytes(random.below(300)),
  () => Buffer.from(NARINFO),
  () => NAR,
  () => zstdCompressSync(NAR),
  () => gzipSync(NAR),
  () => Buffer.from("/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj", "base64"),
  () => Buffer.from('{"id":"x","outPath":"/etc/passwd","archive":1,"member":[]}'),
  (random) => Buffer.from("[".repeat(random.below(20_000))),
  () => Buffer.from("StoreDir: /gnu/store\n"),
];

function mutated(random: Random, bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  for (let i = random.below(4); i > 0 && copy.length > 0; i--) {
    copy[random.below(copy.length)] = random.below(256);
  }
  return random.below(5) === 0 ? copy.subarray(0, random.below(copy.length + 1)) : copy;
}

function pathOf(random: Random): string {
  const path = random.pick(PATHS);
  const at = random.below(path.length + 1);
  switch (random.below(6)) {
    case 0:
      return `${path.slice(0, at)}${random.pick(PARTS)}${path.slice(at)}`;
    case 1:
      return `${path.slice(0, at)}/${Array.from({ length: 5 }, () => random.pick(PARTS)).join("/")}`;
    case 2:
      return path.slice(0, at);
    case 3:
      return `${path.slice(0, at)}${"a".repeat(random.below(9_000))}${path.slice(at)}`;
    default:
      return path;
  }
}

/** Makes a request with something wrong in it, most of the time. */
function requestOf(random: Random): Buffer {
  const body = mutated(random, random.pick(BODIES)(random));
  const headers = Array.from({ length: random.below(3) }, () => random.pick(HEADERS)(random));
  switch (random.below(8)) {
    case 0: // none
      break;
    case 1:
      headers.push(`Content-Length: ${body.length + random.below(50)}`);
      break;
    case 2:
      headers.push("Transfer-Encoding: chunked");
      break;
    default:
      headers.push(`Content-Length: ${body.length}`);
  }
  const version = random.below(20) > 0 ? "HTTP/1.1" : random.pick(["HTTP/1.0", "HTTP/9.9", ""]);
  const line = `${random.pick(METHODS)} ${pathOf(random)} ${version}`;
  const head = Buffer.from([line, "Host: x", ...headers, "", ""].join("\r\n"), "latin1");
  return mutateRarely(random, Buffer.concat([head, body]));
}

function mutateRarely(random: Random, request: Buffer): Buffer {
  return random.below(8) === 0 ? mutated(random, request) : request;
}

/** Sends bytes on a connection of their own, ends it, and returns everything that comes back. */
async function exchange(port: number, bytes: Buffer): Promise<string> {
  const socket: Socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const parts: Buffer[] = [];
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.on("error", () => undefined); // it may break off while bytes are still being sent
  socket.on("data", (data) => parts.push(data));
  socket.on("end", () => socket.destroy());
  socket.end(bytes);
  const late = setTimeout(() => socket.destroy(new Error("no answer")), ANSWER_MS);
  const begun = performance.now();
  await closed;
  clearTimeout(late);
  if (performance.now() - begun >= ANSWER_MS)
    throw new Error(`no answer to ${bytes.toString("latin1").slice(0, 2_000)}`);
  return Buffer.concat(parts).toString("latin1");
}

describe("the binary cache", () => {
  const folder = temporaryFolder();
  let daemon: Daemon;
  let port: number;
  beforeAll(async () => {
    daemon = await startDaemon([
      ...embeddedIn(folder.path),
      "--listen-address=127.0.0.1:0",
      `--cache-object-addr=sqlite://${folder.path}/objects`,
      "--body-timeout=2s",
    ]);
    port = Number(daemon.addresses[0]!.split(":")[1]);
  });
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const peakMemoryKiB = () => {
    const status = readFileSync(`/proc/${daemon.process.pid}/status`, "utf8");
    return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)![1]);
  };

  it(
    `refuses ${REQUESTS} malformed requests clearly, and goes on`,
    async () => {
      const random = new Random(2026);
      const requests = Array.from({ length: REQUESTS }, () => random.below(2 ** 31));
      const statuses = new Map<number, number>();
      const send = async () => {
        for (let seed = requests.pop(); seed !== undefined; seed = requests.pop()) {
          const bytes = requestOf(new Random(seed));
          const answer = await exchange(port, bytes);
          const status = Number(
            /^HTTP\/1\.1 (\d{3}) /.exec(
              answer.replace(/^HTTP\/1\.1 100 Continue\r\n\r\n/, ""),
            )?.[1] ?? 0,
          );
          statuses.set(status, (statuses.get(status) ?? 0) + 1);
          if (status < 500 || UNKNOWN_TO_SERVERS.includes(status)) continue;
          const shown = bytes.toString("latin1").slice(0, 2_000);
          throw new Error(`expected a refusal of ${JSON.stringify(shown)}, found ${answer}`);
        }
      };
      await Promise.all(Array.from({ length: CONNECTIONS }, send));
      expect(statuses.get(400)).toBeGreaterThan(REQUESTS / 20);
      for (const status of [404, 405, 415, 431]) expect(statuses.get(status)).toBeGreaterThan(0);
      expect(await (await fetch(`http://127.0.0.1:${port}/nix-cache-info`)).text()).toContain(
        "StoreDir",
      );
      expect(peakMemoryKiB()).toBeLessThan(MAX_MEMORY_KIB);
    },
    60_000 + REQUESTS * 4,
  );

  const INNER = `GET /nix-cache-info HTTP/1.1\r\nHost: smuggled\r\n\r\n`;
  it.each([
    ["two lengths", `Content-Length: 5\r\nContent-Length: 50\r\n\r\nabcde${INNER}`],
    [
      "a length and chunks",
      `Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${INNER}`,
    ],
    [
      "chunks that are not the last encoding",
      `Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n${INNER}`,
    ],
    ["an unknown encoding of transfer", `Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${INNER}`],
    ["space before a colon", `Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n${INNER}`],
    ["a length of several numbers", `Content-Length: 5, 50\r\n\r\nabcde${INNER}`],
    [
      "a chunk with a wrong size",
      `Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n${INNER}`,
    ],
  ])("answers no request that is hidden in another one by %s", async (_, rest) => {
    const answer = await exchange(
      port,
      Buffer.from(`PUT /${HASH}.ls HTTP/1.1\r\nHost: x\r\n${rest}`),
    );
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).not.toContain("StoreDir");
  });

  it("speaks no HTTP/2 on a connection that began with HTTP/1.1", async () => {
    const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const settings = Buffer.from("000000040000000000", "hex");
    const upgrade =
      "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__";
    const first = `GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n\r\n`;
    const answer = await exchange(port, Buffer.concat([Buffer.from(first + preface), settings]));
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    expect(answer.match(/StoreDir/g)).toHaveLength(1);
    expect(answer.slice(answer.indexOf("Priority"))).toMatch(
      /^Priority: 39\n(HTTP\/1\.1 400 [\s\S]*)?$/,
    );
  });

  it("answers nothing of HTTP/1.1 on a connection that began with HTTP/2", async () => {
    const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    const settings = Buffer.from("000000040000000000", "hex");
    const answer = await exchange(port, Buffer.concat([preface, settings, Buffer.from(INNER)]));
    expect(answer).not.toContain("HTTP/1.1");
    expect(answer).not.toContain("StoreDir");
  });
});
