import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openBlobService, openDirectoryService } from "./from-addr.ts";

const folder = mkdtempSync(join(tmpdir(), "addresses-"));
afterAll(() => rmSync(folder, { recursive: true }));

const ANYWHERE = [
  "memory://",
  "grpc+unix:///path/to/somewhere",
  "grpc+http://[::1]:12345",
  "grpc+http://localhost",
  "grpc+https://localhost",
];

describe.each([
  ["openBlobService", openBlobService],
  ["openDirectoryService", openDirectoryService],
])("%s", (_, open: (address: string) => Promise<AsyncDisposable>) => {
  it.each(ANYWHERE)("opens %s", async (address) => {
    await using service = await open(address);
    expect(service).toBeDefined();
  });

  it.each([
    ["http://foo.example/test", '"http"'],
    ["memory://foo", 'found "foo"'],
    ["memory:///", 'found "/"'],
    ["memory:///foo", 'found "/foo"'],
    ["memory://?x=1", '"x"'],
    ["grpc+unix://host.example/path/to/somewhere", 'found "host.example"'],
    ["grpc+unix://", "expected a path"],
    ["grpc+http://localhost/some-path", 'found "/some-path"'],
    ["grpc+http://", "expected a"],
    ["sqlite:///", ""],
    ["sqlite://foo.example", ""],
    ["sqlite://foo.example/path", ""],
    ["sled:///path", "is not offered, use"],
    ["memory:", "expected a URL"],
    ["", "expected a URL"],
    ["memory://#here", "fragment"],
    ["grpc+unix:///a?x=1&x=2", "twice"],
    ["grpc+unix:///%ff", "percent-encoded"],
    ["toString://", "expected a URL"],
  ])("refuses %s", async (address, reason) => {
    await expect(open(address)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(reason),
    });
  });

  it("does not repeat credentials", async () => {
    const opening = open("grpc+https://me:secret@localhost");
    await expect(opening).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.not.stringContaining("secret"),
    });
  });
});

describe("openBlobService", () => {
  it("opens packs, whose folder may need percent-encoding, with their keys", async () => {
    const address = `pack://${encodeURI(folder)}/with%20space?zstd_level=3&avg_chunk_size=65536`;
    await using service = await openBlobService(address);
    expect(service).toBeDefined();
  });

  it.each([
    ["pack:///x?zstd_level=fast", "zstd_level"],
    ["pack:///x?zstd_level=23", "zstd_level"],
    ["pack:///x?colour=red", "colour"],
    [`pack://${folder}/y?avg_chunk_size=1000`, "power of two"],
    ["pack://host/x", 'found "host"'],
  ])("refuses %s", async (address, reason) => {
    await expect(openBlobService(address)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(reason),
    });
  });
});

describe("openDirectoryService", () => {
  it.each(["sqlite://", `sqlite://${folder}/directories`])("opens %s", async (address) => {
    await using service = await openDirectoryService(address);
    expect(service).toBeDefined();
  });
});
