import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  blake3Digest,
  collectBytes,
  Directory,
  encodeDirectory,
  openBlobService,
  openDirectoryService,
  putBlob,
} from "@tvix/castore";
import { openPathInfoService, type PathInfo, StorePath } from "@tvix/store";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { seededBytes } from "../src/index.ts";

const CONTENTS = seededBytes("read-only", 1_000_000);
const DIGEST = blake3Digest(CONTENTS);
const DIRECTORY = Directory.from([]);
const PATH_INFO: PathInfo = {
  storePath: StorePath.from(seededBytes("read-only", StorePath.HASH_PART_LENGTH), "read-only"),
  node: { type: "file", digest: DIGEST, size: BigInt(CONTENTS.length), executable: false },
  references: [],
  narSize: 1_000_120n,
  narSha256: seededBytes("nar", 32),
  signatures: [],
};

const isRoot = process.getuid?.() === 0;

/** Makes a folder read-only for this process; returns a function that undoes it. */
type MakeReadOnly = (path: string) => () => void;

/** How it can be done, or what is missing for it. */
const WAYS: Readonly<Record<string, MakeReadOnly | string>> = {
  "on a read-only file system": canMount()
    ? (path) => {
        execFileSync("mount", ["--bind", path, path]);
        execFileSync("mount", ["-o", "remount,ro,bind", path]);
        return () => execFileSync("umount", ["-l", path]);
      }
    : "the right to mount",
  "without permission to write": isRoot
    ? "a user other than root, who may write everywhere"
    : (path) => {
        const change = (folder: number, file: number) => {
          for (const entry of readdirSync(path, { withFileTypes: true, recursive: true })) {
            chmodSync(join(entry.parentPath, entry.name), entry.isDirectory() ? folder : file);
          }
          chmodSync(path, folder);
        };
        change(0o555, 0o444);
        return () => change(0o755, 0o644);
      },
};

function canMount(): boolean {
  const path = mkdtempSync(join(tmpdir(), "can-bind-"));
  try {
    execFileSync("mount", ["--bind", path, path], { stdio: "pipe" });
    execFileSync("umount", [path]);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(path, { recursive: true });
  }
}

const CASES = Object.entries(WAYS).map(([name, way]) =>
  typeof way === "string"
    ? ([`${name} (missing: ${way})`, undefined] as const)
    : ([name, way] as const),
);

describe.each(CASES)("a store %s", (_, makeReadOnly) => {
  const refused = { code: "permission_denied" };
  let parent: string;
  let folder: string;
  let undo: (() => void) | undefined;
  beforeEach(() => {
    parent = mkdtempSync(join(tmpdir(), "read-only-"));
    folder = join(parent, "store");
    mkdirSync(folder);
  });
  afterEach(() => {
    undo?.();
    undo = undefined;
    rmSync(parent, { recursive: true });
  });

  const blobs = () => openBlobService(`pack://${folder}/blobs`);
  const directories = () => openDirectoryService(`sqlite://${folder}/directories.sqlite`);
  const pathInfos = () => openPathInfoService(`sqlite://${folder}/path-infos.sqlite`);

  async function fill(): Promise<void> {
    await using blobService = await blobs();
    await putBlob(blobService, CONTENTS.slice());
    await using directoryService = await directories();
    await using putter = directoryService.openPutter();
    await putter.put(DIRECTORY);
    await putter.close();
    await using pathInfoService = await pathInfos();
    await pathInfoService.put(PATH_INFO);
  }

  async function expectReadable(): Promise<void> {
    await using blobService = await blobs();
    const found = await collectBytes((await blobService.read(DIGEST))!);
    expect(Buffer.compare(found, CONTENTS)).toBe(0);
    await using directoryService = await directories();
    expect(await directoryService.get(encodeDirectory(DIRECTORY).digest)).toEqual(DIRECTORY);
    await using pathInfoService = await pathInfos();
    const { hashPart } = PATH_INFO.storePath;
    expect((await pathInfoService.get(hashPart))!.narSize).toBe(PATH_INFO.narSize);
  }

  it.runIf(makeReadOnly)("that was closed is read", async () => {
    await fill();
    undo = makeReadOnly!(folder);
    await expectReadable();
  });

  it.runIf(makeReadOnly)("refuses what is put, and is as it was", async () => {
    await fill();
    undo = makeReadOnly!(folder);
    {
      await using blobService = await blobs();
      await expect(putBlob(blobService, Buffer.from("new"))).rejects.toMatchObject(refused);
      await using directoryService = await directories();
      const putting = async () => {
        await using putter = directoryService.openPutter();
        const node = { type: "symlink", target: Buffer.from("x") } as never;
        await putter.put(Directory.from([{ name: Buffer.from("new") as never, node }]));
        await putter.close();
      };
      await expect(putting()).rejects.toMatchObject(refused);
      await using pathInfoService = await pathInfos();
      const other = { ...PATH_INFO, narSize: 1n };
      await expect(pathInfoService.put(other)).rejects.toMatchObject(refused);
    }
    await expectReadable();
  });

  it.runIf(makeReadOnly)("that is not there is refused, not to be tried again", async () => {
    undo = makeReadOnly!(folder);
    for (const open of [blobs, directories, pathInfos]) {
      await expect(open()).rejects.toMatchObject(refused);
    }
  });

  it.runIf(makeReadOnly)(
    "that another process left open is read with its write-ahead log",
    async () => {
      const opened = [await blobs(), await directories(), await pathInfos()];
      try {
        await fill();
        undo = makeReadOnly!(folder);
        await expectReadable();
      } finally {
        undo?.();
        undo = undefined;
        for (const service of opened) await service[Symbol.asyncDispose]();
      }
    },
  );
});

it("a database that is a folder is refused, not to be tried again", async () => {
  const path = mkdtempSync(join(tmpdir(), "folder-"));
  try {
    writeFileSync(join(path, "file"), "");
    await expect(openDirectoryService(`sqlite://${path}`)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(path),
    });
  } finally {
    rmSync(path, { recursive: true });
  }
});
