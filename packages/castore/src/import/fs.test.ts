import { execFileSync } from "node:child_process";
import { appendFileSync, chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { symlink } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { noise } from "../../test/noise.ts";
import type { BlobWriter } from "../blobservice/blob-service.ts";
import { MemoryBlobService } from "../blobservice/memory.ts";
import { collectBytes, equalBytes } from "../bytes/byte-string.ts";
import { MemoryDirectoryService } from "../directoryservice/memory.ts";
import { blake3Digest } from "../hash/blake3-digest.ts";
import type { B3Digest } from "../model/digest.ts";
import type { Directory } from "../model/directory.ts";
import { CastoreError } from "../model/errors.ts";
import { type Node, symlinkTarget } from "../model/node.ts";
import { pathComponent } from "../model/path.ts";
import { importPath } from "./fs.ts";
import type { TreeVisitor } from "./tree-visitor.ts";

let folder: string;
let services: { blobService: MemoryBlobService; directoryService: MemoryDirectoryService };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "import-"));
  services = {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
  };
});

afterEach(() => rmSync(folder, { recursive: true }));

async function directoryOf(node: Node): Promise<Directory> {
  if (node.type !== "directory") throw new Error(`expected a directory, found a ${node.type}`);
  const directory = await services.directoryService.get(node.digest);
  if (directory === undefined) throw new Error("the directory is not stored");
  return directory;
}

async function contentsOf(node: Node | undefined): Promise<Uint8Array> {
  if (node?.type !== "file") throw new Error(`expected a file, found ${node?.type}`);
  const stream = await services.blobService.read(node.digest);
  if (stream === undefined) throw new Error("the blob is not stored");
  return await collectBytes(stream);
}

describe("importPath", () => {
  it("stores files, symlinks and folders with everything below", async () => {
    mkdirSync(join(folder, "sub/empty"), { recursive: true });
    writeFileSync(join(folder, "tool"), "#!/bin/sh\n");
    chmodSync(join(folder, "tool"), 0o755);
    writeFileSync(join(folder, "sub/data"), noise(70_000));
    await symlink("../tool", join(folder, "sub/link"));

    const root = await importPath(folder, services);

    expect(root).toMatchObject({ type: "directory", size: 10n });
    const top = await directoryOf(root);
    expect(top.entries.map(({ name }) => Buffer.from(name).toString())).toEqual(["sub", "tool"]);
    expect(top.get(pathComponent("tool"))).toMatchObject({ executable: true, size: 10n });
    const sub = await directoryOf(top.get(pathComponent("sub"))!);
    expect(sub.get(pathComponent("data"))).toMatchObject({ executable: false, size: 70_000n });
    expect(equalBytes(await contentsOf(sub.get(pathComponent("data"))), noise(70_000))).toBe(true);
    expect(sub.get(pathComponent("link"))).toMatchObject({
      type: "symlink",
      target: symlinkTarget("../tool"),
    });
    expect((await directoryOf(sub.get(pathComponent("empty"))!)).entries).toEqual([]);
  });

  it("stores a single file and a single symlink as root", async () => {
    writeFileSync(join(folder, "file"), "contents");
    await symlink("nowhere", join(folder, "link"));
    const digest = blake3Digest(Buffer.from("contents"));
    expect(await importPath(join(folder, "file"), services)).toEqual({
      type: "file",
      digest: expect.toSatisfy((found: B3Digest) => found.equals(digest)),
      size: 8n,
      executable: false,
    });
    expect(await importPath(join(folder, "link"), services)).toMatchObject({ type: "symlink" });
  });

  it("streams files that are too large to be read ahead", async () => {
    const contents = noise(3 * 1024 * 1024 + 17);
    writeFileSync(join(folder, "large"), contents);
    const root = await importPath(join(folder, "large"), services);
    expect(root).toMatchObject({ size: BigInt(contents.length) });
    expect(equalBytes(await contentsOf(root), contents)).toBe(true);
  });

  it("stores more files than are read ahead at once, in canonical order", async () => {
    for (let i = 0; i < 700; i++) writeFileSync(join(folder, `${i}`), noise(i % 50, i));
    const root = await directoryOf(await importPath(folder, services));
    const names = root.entries.map(({ name }) => Buffer.from(name).toString());
    expect(names).toEqual([...Array(700).keys()].map(String).sort());
    expect(equalBytes(await contentsOf(root.get(pathComponent("649"))), noise(49, 649))).toBe(true);
  });

  it("keeps names that are not UTF-8", async () => {
    const name = Buffer.from([0x66, 0xff, 0xfe]);
    writeFileSync(Buffer.concat([Buffer.from(`${folder}/`), name]), "");
    const root = await directoryOf(await importPath(folder, services));
    expect(root.entries.map((entry) => Buffer.from(entry.name))).toEqual([name]);
  });

  it("shows the tree to a visitor in canonical order", async () => {
    mkdirSync(join(folder, "a"));
    writeFileSync(join(folder, "a/1"), "one");
    writeFileSync(join(folder, "a-b"), "two");
    await symlink("x", join(folder, "Z"));
    const seen: string[] = [];
    const visitor: TreeVisitor = {
      enterDirectory: () => seen.push("("),
      entry: (name) => seen.push(Buffer.from(name).toString()),
      leaveDirectory: () => seen.push(")"),
      file: (size, executable) => seen.push(`file ${size} ${executable}`),
      contents: (data) => seen.push(Buffer.from(data).toString()),
      symlink: (target) => seen.push(`-> ${Buffer.from(target)}`),
    };
    await importPath(folder, services, { visitor });
    const two = ["a-b", "file 3 false", "two"];
    const one = ["a", "(", "1", "file 3 false", "one", ")"];
    expect(seen).toEqual(["(", "Z", "-> x", ...one, ...two, ")"]);
  });

  it("tells how far it has come", async () => {
    writeFileSync(join(folder, "small"), noise(1000));
    writeFileSync(join(folder, "zlarge"), noise(2_500_000));
    const totals: { entries: number; bytes: number }[] = [];
    await importPath(folder, services, { onProgress: (progress) => totals.push(progress) });
    expect(totals.at(-1)).toEqual({ entries: 3, bytes: 2_501_000 });
    expect(totals.length).toBeGreaterThan(4);
  });

  it("refuses a path that does not exist", async () => {
    await expect(importPath(join(folder, "none"), services)).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining(JSON.stringify(join(folder, "none"))),
    });
  });

  it("refuses a fifo, a socket and a device inside the tree, by name", async () => {
    execFileSync("mkfifo", [join(folder, "pipe")]);
    await expect(importPath(folder, services)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringMatching(/pipe".*found a fifo/),
    });
    rmSync(join(folder, "pipe"));

    const server = createServer().listen(join(folder, "sock"));
    await new Promise((resolve) => server.once("listening", resolve));
    await expect(importPath(folder, services)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringMatching(/sock".*found a socket/),
    });
    await new Promise((resolve) => server.close(resolve));

    await expect(importPath("/dev/null", services)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining("found a character device"),
    });
  });

  it("leaves no directory visible when something in the tree is refused", async () => {
    mkdirSync(join(folder, "a"));
    writeFileSync(join(folder, "a/file"), "x");
    const complete = await importPath(join(folder, "a"), services);
    await using fresh = new MemoryDirectoryService();
    execFileSync("mkfifo", [join(folder, "pipe")]);
    await expect(
      importPath(folder, { ...services, directoryService: fresh }),
    ).rejects.toMatchObject({ code: "invalid_argument" });
    if (complete.type !== "directory") throw new Error("expected a directory");
    expect(await fresh.get(complete.digest)).toBeUndefined();
  });

  it("refuses a file that changes while it is read", async () => {
    const path = join(folder, "growing");
    writeFileSync(path, noise(4_000_000));
    const growing = importPath(folder, services, {
      onProgress: () => appendFileSync(path, "more"),
    });
    await expect(growing).rejects.toMatchObject({
      code: "aborted",
      message: expect.stringContaining("changed"),
    });
  });

  it("refuses a file that vanishes after its folder was listed", async () => {
    writeFileSync(join(folder, "a"), noise(2_000_000));
    for (let i = 0; i < 600; i++) writeFileSync(join(folder, `b${i}`), "x");
    const vanishing = importPath(folder, services, {
      onProgress: () => rmSync(join(folder, "b99"), { force: true }),
    });
    await expect(vanishing).rejects.toMatchObject({ code: "aborted" });
  });

  it("ends at once when cancelled, before and during", async () => {
    writeFileSync(join(folder, "large"), noise(4_000_000));
    const reason = new Error("enough");
    await expect(importPath(folder, services, { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
    const controller = new AbortController();
    const running = importPath(folder, services, {
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    });
    await expect(running).rejects.toBe(reason);
  });
});

/** A store that becomes unavailable at some bytes or at the end of its next uploads, as does a daemon that restarts. */
class RestartingBlobService extends MemoryBlobService {
  uploads = 0;
  readonly #failures: (number | "close")[];

  /** @param failures where each upload fails, one after the other; the others succeed */
  constructor(...failures: (number | "close")[]) {
    super();
    this.#failures = failures;
  }

  override openWriter(...args: Parameters<MemoryBlobService["openWriter"]>): BlobWriter {
    const writer = super.openWriter(...args);
    const failure = this.#failures.shift();
    const restart = () =>
      Promise.reject(new CastoreError("unavailable", "Cannot put: it restarts"));
    this.uploads += 1;
    let bytes = 0;
    return {
      write: async (data) => {
        bytes += data.length;
        if (typeof failure === "number" && bytes > failure) await restart();
        await writer.write(data);
      },
      close: () => (failure === "close" ? restart() : writer.close()),
      [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
    };
  }
}

describe("importPath to a store that restarts", () => {
  const contents = noise(3_500_000);
  const shown: Uint8Array[] = [];
  const visitor: TreeVisitor = {
    enterDirectory: () => undefined,
    entry: () => undefined,
    leaveDirectory: () => undefined,
    file: () => undefined,
    contents: (data) => shown.push(new Uint8Array(data)),
    symlink: () => undefined,
  };
  beforeEach(() => {
    shown.length = 0;
    writeFileSync(join(folder, "large"), contents);
    writeFileSync(join(folder, "zarge"), contents.subarray(1));
  });

  it.each([
    ["in the middle", [2_000_000], 3],
    ["at its end", ["close"], 3],
    ["again and again", [1_500_000, "close", 3_000_000, 1_500_000], 5],
  ] as const)(
    "reads a file again that fails %s, and shows it once",
    async (_, failures, uploads) => {
      // The two files fail in turn: fewer failures than attempts for each.
      const blobService = new RestartingBlobService(...failures);
      const totals: number[] = [];
      const root = await importPath(
        folder,
        { ...services, blobService },
        {
          visitor,
          onProgress: ({ bytes }) => totals.push(bytes),
        },
      );
      expect(root).toEqual(await importPath(folder, services));
      expect(Buffer.concat(shown).equals(Buffer.concat([contents, contents.subarray(1)]))).toBe(
        true,
      );
      expect(totals.at(-1)).toBe(6_999_999);
      expect(blobService.uploads).toBeGreaterThanOrEqual(uploads);
    },
  );

  it("gives up after four attempts, and where the store does not come back", async () => {
    rmSync(join(folder, "zarge"));
    const blobService = new RestartingBlobService(2_000_000, 0, "close", 3_000_000);
    await expect(importPath(folder, { ...services, blobService })).rejects.toMatchObject({
      code: "unavailable",
    });
    expect(blobService.uploads).toBe(4);
    const gone = new RestartingBlobService(2_000_000);
    const failure = new CastoreError("unavailable", "Cannot look up: it is gone");
    gone.has = () => Promise.reject(failure);
    await expect(importPath(folder, { ...services, blobService: gone })).rejects.toBe(failure);
    expect(gone.uploads).toBe(1);
  });

  it("refuses a file that has changed when it is read again", async () => {
    const blobService = new RestartingBlobService("close");
    const root = importPath(
      folder,
      { ...services, blobService },
      {
        onProgress: ({ bytes }) => {
          if (bytes >= contents.length) appendFileSync(join(folder, "large"), "more");
        },
      },
    );
    await expect(root).rejects.toMatchObject({ code: "aborted" });
  });
});
