import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type B3Digest, collectBytes, openBlobService, putBlob } from "@tvix/castore";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Daemon, embeddedIn, startDaemon, temporaryFolder, tvixStore } from "./harness.ts";

const DATA = Buffer.from("contents of a blob");

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder[Symbol.dispose]());

/** Stores a blob in packs, and damages the one that it is in. */
async function putAndDamage(path: string): Promise<B3Digest> {
  let digest: B3Digest;
  {
    await using packs = await openBlobService(`pack://${path}`);
    digest = await putBlob(packs, DATA);
  }
  const [pack] = readdirSync(join(path, "packs"));
  const file = join(path, "packs", pack!);
  const bytes = readFileSync(file);
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(file, bytes);
  return digest;
}

function writeComposition(blobs: string): string {
  const file = join(folder.path, "stores.toml");
  const others = `
    directoryservices.default.type = "memory"
    pathinfoservices.default.type = "memory"
  `;
  writeFileSync(file, `${others}${blobs}`);
  return file;
}

/** Waits for a line of the log, which is written shortly after its event. */
async function expectLine(daemon: Daemon, line: Record<string, unknown>): Promise<void> {
  await vi.waitFor(() => expect(daemon.log).toContainEqual(expect.objectContaining(line)));
}

describe("the log of a daemon", () => {
  it("has the damage that a store met, as an error with the name of the store", async () => {
    const digest = await putAndDamage(join(folder.path, "blobs"));
    const file = writeComposition(`
      [blobservices.default]
      type = "combined"
      near = "memory://"
      far = "shelf"
      [blobservices.shelf]
      type = "pack"
      path = "${folder.path}/blobs"
    `);
    const socket = join(folder.path, "sock");
    const args = [`--listen-address=${socket}`, "--store-composition", file];
    await using daemon = await startDaemon(args);
    await using client = await openBlobService(`grpc+unix://${socket}`);
    const reading = async () => await collectBytes((await client.read(digest))!);
    await expect(reading()).rejects.toMatchObject({ code: "data_loss" });
    await expectLine(daemon, {
      level: 50,
      store: "shelf",
      kind: "blobservices",
      msg: expect.stringContaining(`Cannot read chunk ${digest}`),
    });
    const service = "tvix.castore.v1.BlobService";
    await expectLine(daemon, { level: 40, service, method: "Read", code: "data_loss" });
  });

  it("has what the local store of a cache failed at, as a warning with the name of the store", async () => {
    const file = writeComposition(`
      [blobservices.default]
      type = "combined"
      near = "grpc+http://127.0.0.1:1"
      far = "memory://"
    `);
    const socket = join(folder.path, "sock");
    const args = [`--listen-address=${socket}`, "--store-composition", file];
    await using daemon = await startDaemon(args);
    await using client = await openBlobService(`grpc+unix://${socket}`);
    expect(await client.has(await putBlob(client, DATA))).toBe(true);
    await expectLine(daemon, {
      level: 40,
      store: "default",
      kind: "blobservices",
      msg: expect.stringMatching(/^Cannot .* the local store: .* at grpc\+http:\/\/127.0.0.1:1: /),
    });
  });
});

describe("an import", () => {
  it("writes a line for what a store failed at that fails nothing", async () => {
    writeFileSync(join(folder.path, "file"), DATA);
    const [blobs, ...others] = embeddedIn(folder.path);
    const [, packs] = blobs!.split(/=(.*)/s);
    const near = "grpc+http://127.0.0.1:1";
    const combined = `--blob-service-addr=combined://?near=${near}&far=${packs}`;
    const args = ["import", join(folder.path, "file"), combined, ...others];
    const { status, stderr } = await tvixStore(args);
    expect(status).toBe(0);
    for (const line of stderr.trimEnd().split("\n")) {
      expect(line).toMatch(/^tvix-store: combined:\/\/\?\.\.\.: Cannot .* the local store: /);
    }
  });
});
