import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { collectBytes, decompress, MemoryDirectoryService, PackBlobService } from "@tvix/castore";
import { seededBytes } from "@tvix/conformance";
import { decodeNixbase32, NarInfo, SigningKey } from "@tvix/store";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type BridgeFixture, startBridge } from "../../test/bridge-fixture.ts";
import {
  type Answer,
  KEY,
  type Offered,
  startUpstream,
  type Upstream,
} from "../../test/upstream-fixture.ts";
import type { UpstreamOptions } from "./upstreams.ts";

const TRUSTED = { publicKeys: [KEY.verifyingKey] };

/** More than a spool keeps in memory, and more than one piece of a compressed NAR. */
const LARGE = { large: seededBytes("upstream", 1_000_000) };

const refusing: Answer = (response) => void response.destroy();

let first: Upstream;
let second: Upstream;
let troubles: string[];
let folder: string;
const running: AsyncDisposable[] = [];
beforeEach(async () => {
  troubles = [];
  folder = await mkdtemp(join(tmpdir(), "tvix-pull-"));
  first = await startUpstream();
  second = await startUpstream();
  running.push(first, second);
});
afterEach(async () => {
  for (const one of running.splice(0).reverse()) await one[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Starts a cache in front of the upstreams, all of one priority unless other options are given. */
async function start(
  options: Partial<UpstreamOptions>[] = [{}],
  services: Partial<BridgeFixture["services"]> = {},
): Promise<BridgeFixture> {
  const upstreams = [first, second];
  const bridge = await startBridge({
    ...services,
    upstreams: {
      caches: options.map((one, i) => ({
        ...{ baseUrl: upstreams[i]!.url, ...TRUSTED, timeoutMs: 1000 },
        ...one,
      })),
      restMs: 300,
      onTrouble: (message) => troubles.push(message),
    },
  });
  running.push(bridge);
  return bridge;
}

const getNarInfo = async (bridge: BridgeFixture, hash: string) =>
  NarInfo.parse(await (await fetch(`${bridge.url}/${hash}.narinfo`)).text());

/** Gets a NAR as its narinfo says. */
async function getNar(bridge: BridgeFixture, hash: string, headers = {}): Promise<Response> {
  const { url } = await getNarInfo(bridge, hash);
  return await fetch(`${bridge.url}/${url}`, { headers });
}

const bytesOf = async (response: Response) => Buffer.from(await response.arrayBuffer());
const isStored = async ({ services }: BridgeFixture, { hash }: Offered) =>
  (await services.pathInfoService.get(decodeNixbase32(hash))) !== undefined;
const statusOf = async (bridge: BridgeFixture, hash: string) =>
  (await fetch(`${bridge.url}/${hash}.narinfo`)).status;

describe("a store path that only an upstream has", () => {
  it("is described with its signatures, without its NAR", async () => {
    const offered = await first.offer("a", LARGE);
    const bridge = await start();
    const narInfo = await getNarInfo(bridge, offered.hash);
    expect(narInfo).toMatchObject({
      compression: "none",
      fileSize: offered.pathInfo.narSize,
      signatures: offered.pathInfo.signatures,
      narSha256: offered.pathInfo.narSha256,
    });
    const head = await fetch(`${bridge.url}/${narInfo.url}`, { method: "HEAD" });
    expect([head.status, head.headers.get("content-length")]).toEqual([
      ...[200, `${offered.nar.length}`],
    ]);
    await getNarInfo(bridge, offered.hash);
    expect(first.requests).toEqual([offered.narInfoPath]);
    expect(await isStored(bridge, offered)).toBe(false);
  });

  it("is served while it is stored, then from the store, without the upstream", async () => {
    const offered = await first.offer("a", LARGE);
    const bridge = await start();
    const { url } = await getNarInfo(bridge, offered.hash);
    const get = async () => await bytesOf(await fetch(`${bridge.url}/${url}`));
    expect(offered.nar.equals(await get())).toBe(true);
    const stored = await bridge.services.pathInfoService.get(decodeNixbase32(offered.hash));
    expect(stored).toEqual(offered.pathInfo);
    await first.stop();
    expect(offered.nar.equals(await get())).toBe(true); // under the same name
    expect(await getNarInfo(bridge, offered.hash)).toMatchObject({
      signatures: offered.pathInfo.signatures,
    });
    await first.start();
  });

  it("is found by a cache that has just started, or another one", async () => {
    const offered = await first.offer("a", "contents");
    const { url } = await getNarInfo(await start(), offered.hash);
    const other = await start();
    expect(offered.nar.equals(await bytesOf(await fetch(`${other.url}/${url}`)))).toBe(true);
  });

  it("is downloaded once for many clients, also for those that come late or are slow", async () => {
    const offered = await first.offer("a", LARGE);
    const file = first.files.get(offered.narPath) as Buffer;
    const half = Promise.withResolvers<void>();
    first.files.set(offered.narPath, async (response) => {
      response.write(file.subarray(0, file.length / 2));
      await half.promise;
      response.end(file.subarray(file.length / 2));
    });
    const bridge = await start();
    const { url } = await getNarInfo(bridge, offered.hash);
    const slow = connect(bridge.port, "127.0.0.1"); // it reads nothing at first
    slow.write(`GET /${url} HTTP/1.0\r\n\r\n`);
    const early = await Promise.all(
      Array.from({ length: 20 }, () => fetch(`${bridge.url}/${url}`)),
    );
    const late = Array.from({ length: 5 }, () => fetch(`${bridge.url}/${url}`));
    const range = { range: "bytes=300000-" };
    const resumed = await fetch(`${bridge.url}/${url}`, { headers: range });
    half.resolve();
    for (const response of [...early, ...late]) {
      expect(offered.nar.equals(await bytesOf(await response))).toBe(true);
    }
    expect(resumed.status).toBe(206);
    expect(offered.nar.subarray(300_000).equals(await bytesOf(resumed))).toBe(true);
    expect((await text(slow.setEncoding("latin1"))).endsWith(offered.nar.toString("latin1"))).toBe(
      true,
    );
    expect(first.requests).toEqual([offered.narInfoPath, offered.narPath]);
  });

  it("is served although temporary files have no space", async () => {
    const offered = await first.offer("a", LARGE);
    vi.stubEnv("TMPDIR", "/nonexistent");
    try {
      const bridge = await start();
      const answers = [1, 2].map(() => getNar(bridge, offered.hash));
      for (const answer of answers) {
        expect(offered.nar.equals(await bytesOf(await answer))).toBe(true);
      }
    } finally {
      vi.unstubAllEnvs();
    }
  });

  it("is not missing, nor are those that are here, when many are looked up", async () => {
    const offered = await first.offer("a", "contents");
    const stored = await first.offer("b", "others");
    const bridge = await start();
    await bytesOf(await getNar(bridge, stored.hash));
    first.requests.length = 0;
    const absent = "0".repeat(32);
    const missingOf = async (path: string) => {
      const body = JSON.stringify({ hashParts: [offered.hash, stored.hash, absent] });
      const response = await fetch(`${bridge.url}${path}`, { method: "POST", body });
      return await response.json();
    };
    expect(await missingOf("/get-missing")).toEqual({ missing: [absent] });
    expect(first.requests.toSorted()).toEqual([`/${absent}.narinfo`, offered.narInfoPath].sort());
    expect(await missingOf("/local/get-missing")).toEqual({ missing: [offered.hash, absent] });
    expect(first.requests).toHaveLength(2);
  });

  it("is not asked for below /local, where it can be pushed", async () => {
    const offered = await first.offer("a", "contents");
    const bridge = await start();
    expect(await statusOf(bridge, `local/${offered.hash}`)).toBe(404);
    await bytesOf(await getNar(bridge, offered.hash));
    expect(await statusOf(bridge, `local/${offered.hash}`)).toBe(200);
  });
});

describe("an absent store path", () => {
  const absent = "0".repeat(32);

  it("is remembered as absent", async () => {
    const bridge = await start([{}, {}]);
    for (let i = 0; i < 3; i++) expect(await statusOf(bridge, absent)).toBe(404);
    expect([first.requests.length, second.requests.length]).toEqual([1, 1]);
  });

  it("is asked for once by all who ask at the same time", async () => {
    const bridge = await start();
    await Promise.all(Array.from({ length: 20 }, () => statusOf(bridge, absent)));
    expect(first.requests).toHaveLength(1);
  });
});

describe("several upstreams", () => {
  it("are asked at once, and the first valid answer is taken", async () => {
    const offered = await second.offer("a", "contents");
    first.files.set(offered.narInfoPath, () => undefined); // it never answers
    const bridge = await start([{ timeoutMs: 600_000 }, {}]);
    expect(await statusOf(bridge, offered.hash)).toBe(200);
  });

  it("are asked by priority", async () => {
    const offered = await second.offer("a", "contents");
    await first.offer("a", "contents");
    const bridge = await start([{ priority: 50 }, { priority: 10 }]);
    expect(await statusOf(bridge, offered.hash)).toBe(200);
    expect([first.requests.length, second.requests.length]).toEqual([0, 1]);
  });

  it("need a signature by their own key", async () => {
    const offered = await second.offer("a", "contents");
    await first.offer("a", "contents", SigningKey.generate("upstream-1"));
    const bridge = await start([{ priority: 1 }, { priority: 2 }]);
    expect(offered.nar.equals(await bytesOf(await getNar(bridge, offered.hash)))).toBe(true);
    expect(troubles).toEqual([expect.stringContaining('to be signed by "upstream-1"')]);
    expect(first.requests).toEqual([offered.narInfoPath]);
  });

  it("stand in for one that fails in the middle of a NAR, unnoticed", async () => {
    const offered = await second.offer("a", LARGE);
    await first.offer("a", LARGE);
    const file = first.files.get(offered.narPath) as Buffer;
    first.files.set(offered.narPath, (response) => {
      response.writeHead(200, { "content-length": file.length });
      response.write(file.subarray(0, 400_000), () => setTimeout(() => response.destroy(), 20));
    });
    const bridge = await start([{ priority: 1 }, { priority: 2 }]);
    expect(offered.nar.equals(await bytesOf(await getNar(bridge, offered.hash)))).toBe(true);
    expect(second.requests).toEqual([offered.narInfoPath, offered.narPath]);
  });

  it("stand in for one whose NAR is wrong, at once or when the client asks again", async () => {
    const offered = await second.offer("a", LARGE);
    await first.offer("a", LARGE);
    const wrong = Buffer.from(offered.nar);
    wrong[700_000]! ^= 1;
    first.files.set(offered.narPath, gzipSync(wrong, { level: 1 }));
    const bridge = await start([{ priority: 1 }, { priority: 2 }]);
    await expect(getNar(bridge, offered.hash).then(bytesOf)).rejects.toThrow();
    expect(await isStored(bridge, offered)).toBe(false);
    expect(offered.nar.equals(await bytesOf(await getNar(bridge, offered.hash)))).toBe(true);
  });
});

describe("a store path whose contents are lost here", () => {
  it("is fetched from the upstream again, uncompressed and as stored frames", async () => {
    const offered = await first.offer("a", LARGE);
    await using blobService = await PackBlobService.open({ path: join(folder, "blobs") });
    const directoryService = new MemoryDirectoryService();
    const before = await start([{}], { blobService, directoryService });
    await bytesOf(await getNar(before, offered.hash));
    const { pathInfoService } = before.services;
    const { url } = await getNarInfo(before, offered.hash);
    expect(url).toContain(".nar.zst");
    for (const name of [url, url.replace(".zst", "")]) {
      const lost = new MemoryDirectoryService();
      const bridge = await start([{}], { blobService, directoryService: lost, pathInfoService });
      first.requests.length = 0;
      const narInfo = await getNarInfo(bridge, offered.hash);
      expect(narInfo).toMatchObject({ compression: "none", narSize: offered.pathInfo.narSize });
      const bytes = await bytesOf(await fetch(`${bridge.url}/${name}`));
      const nar =
        name === url
          ? Buffer.from(await collectBytes(decompress(ReadableStream.from([bytes]), "zstd")))
          : bytes;
      expect(offered.nar.equals(nar)).toBe(true);
      expect(first.requests).toEqual([offered.narInfoPath, offered.narPath]);
      expect(await getNarInfo(bridge, offered.hash)).toMatchObject({ compression: "zstd" });
    }
  });
});

describe("a NAR of an upstream", () => {
  const wrongs: [string, (offered: Offered, file: Buffer) => Buffer | Answer][] = [
    [
      "breaks off each time",
      (_, file) => (response) => {
        response.writeHead(200, { "content-length": file.length });
        response.write(file.subarray(0, 700_000), () => response.destroy());
      },
    ],
    ["ends too early", ({ nar }) => gzipSync(nar.subarray(0, 700_000))],
    ["has another hash", ({ nar }) => gzipSync(Buffer.from(nar).fill(7, 900_000, 900_001))],
    ["is not compressed as announced", ({ nar }) => nar],
    ["is missing", () => (response) => void response.writeHead(404).end()],
  ];
  it.each(wrongs)("that %s ends no answer cleanly, and stays invisible", async (_, make) => {
    const offered = await first.offer("a", LARGE);
    first.files.set(offered.narPath, make(offered, first.files.get(offered.narPath) as Buffer));
    const bridge = await start();
    const { url } = await getNarInfo(bridge, offered.hash);
    const answers = await Promise.allSettled(
      [1, 2, 3].map(async () => {
        const response = await fetch(`${bridge.url}/${url}`);
        const bytes = await bytesOf(response);
        return response.ok ? bytes : response.status;
      }),
    );
    for (const answer of answers) {
      const { value } = answer as { value?: unknown };
      expect(value === undefined || Number(value) >= 404).toBe(true);
    }
    expect(await isStored(bridge, offered)).toBe(false);
  });

  it("is sent as far as it has arrived while the upstream says no more", async () => {
    const offered = await first.offer("stalled", LARGE);
    const file = first.files.get(offered.narPath) as Buffer;
    const sent = 300_000;
    first.files.set(offered.narPath, async (response) => {
      response.write(file.subarray(0, 1_000));
      await sleep(50);
      response.write(file.subarray(1_000, sent));
    });
    const bridge = await start();
    const { url } = await getNarInfo(bridge, offered.hash);
    const response = await fetch(`${bridge.url}/${url}`);
    const expected = sent * 0.99; // some of it is of gzip
    let arrived = 0;
    for await (const { length } of response.body!) {
      arrived += length;
      if (arrived >= expected) break; // nothing follows
    }
    expect(arrived).toBeGreaterThanOrEqual(expected);
  });

  it("is given up when the only client leaves early, and stored when it leaves late", async () => {
    for (const [share, isKept] of [
      [0.2, false],
      [0.8, true],
    ] as const) {
      const offered = await first.offer(`left-${share}`, LARGE);
      const file = first.files.get(offered.narPath) as Buffer;
      const rest = Promise.withResolvers<void>();
      let isCut = false;
      first.files.set(offered.narPath, async (response) => {
        response.on("close", () => {
          isCut = !response.writableFinished;
        });
        response.write(file.subarray(0, file.length * share));
        await rest.promise;
        response.end(file.subarray(file.length * share));
      });
      const bridge = await start();
      const { url } = await getNarInfo(bridge, offered.hash);
      const socket = connect(bridge.port, "127.0.0.1");
      let arrived = 0;
      socket.on("data", ({ length }) => {
        arrived += length;
      });
      socket.write(`GET /${url} HTTP/1.1\r\nHost: x\r\n\r\n`);
      await expect.poll(() => arrived).toBeGreaterThan(offered.nar.length * share * 0.8);
      socket.destroy();
      await expect.poll(() => bridge.answered.at(-1)).toMatchObject({ complete: false });
      if (!isKept) await expect.poll(() => isCut).toBe(true);
      rest.resolve();
      if (isKept) await expect.poll(() => isStored(bridge, offered)).toBe(true);
      else expect(await isStored(bridge, offered)).toBe(false);
    }
  });
});

describe("an upstream that is down", () => {
  it("is waited for only until that is known, and counts as having nothing", async () => {
    const offered = await second.offer("a", "contents");
    const bridge = await start([{}, {}]);
    await first.stop();
    const absent = Array.from({ length: 4 }, (_, i) => `${i}`.repeat(32));
    const statuses: number[] = [];
    for (const hash of absent) statuses.push(await statusOf(bridge, hash));
    expect(statuses.at(0)).toBe(503); // Nix asks again
    expect(statuses.slice(2)).toEqual([404, 404]);
    expect(await statusOf(bridge, offered.hash)).toBe(200);
    expect(troubles).toEqual([expect.stringContaining("Cannot get")]);
    await first.start();
    const back = await first.offer("back", "contents");
    await expect.poll(() => statusOf(bridge, back.hash), { timeout: 10_000 }).toBe(200);
  });

  it("takes nothing away that is here", async () => {
    const offered = await first.offer("a", "contents");
    const bridge = await start();
    await bytesOf(await getNar(bridge, offered.hash));
    first.files.set(offered.narInfoPath, refusing);
    await first.stop();
    expect(offered.nar.equals(await bytesOf(await getNar(bridge, offered.hash)))).toBe(true);
    await first.start();
  });

  it("is asked again for what it failed to answer", async () => {
    const offered = await first.offer("a", "contents");
    const narInfo = first.files.get(offered.narInfoPath)!;
    first.files.set(offered.narInfoPath, (response) => void response.writeHead(500).end());
    const bridge = await start();
    expect(await statusOf(bridge, offered.hash)).toBe(503);
    first.files.set(offered.narInfoPath, narInfo);
    expect(await statusOf(bridge, offered.hash)).toBe(200);
  });
});
