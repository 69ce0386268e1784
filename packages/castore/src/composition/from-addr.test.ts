import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { openBlobService, openDirectoryService } from "./from-addr.ts";

const folder = mkdtempSync(join(tmpdir(), "addresses-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** What tvix opens, or refuses, and of which kind of services that is. */
const VALID: readonly (readonly [address: string, ...kinds: ("blobs" | "directories")[]])[] = [
  ["memory://", "blobs", "directories"],
  ["grpc+unix:///path/to/somewhere", "blobs", "directories"],
  ["grpc+http://[::1]:12345", "blobs", "directories"],
  ["grpc+http://localhost", "blobs", "directories"],
  ["grpc+https://localhost", "blobs", "directories"],
  ["objectstore+memory:///", "blobs", "directories"],
  ["objectstore+file:///foo/bar", "blobs", "directories"],
  ["objectstore+https://localhost:8080/some-path", "blobs", "directories"],
  ["objectstore+s3://bucket/path", "blobs", "directories"],
  ["objectstore+gs://bucket/path", "blobs", "directories"],
  ["cache://?near=memory://&far=memory://", "directories"],
  ["combined://?near=memory://&far=memory://", "blobs"],
  ["sqlite://", "directories"],
];
const INVALID = [
  "http://foo.example/test",
  "memory://foo",
  "memory:///",
  "memory:///foo",
  "grpc+unix://host.example/path/to/somewhere",
  "grpc+http://localhost/some-path",
  "sqlite:///",
  "sqlite://foo.example",
  "sqlite://foo.example/path",
];
const KINDS = [
  ["blobs", openBlobService],
  ["directories", openDirectoryService],
] as const;
const TABLE = KINDS.flatMap(([kind, open]) => [
  ...VALID.map(([address, ...kinds]) => ({ address, kind, open, valid: kinds.includes(kind) })),
  ...INVALID.map((address) => ({ address, kind, open, valid: false })),
]);

describe("the addresses that tvix has", () => {
  beforeAll(() => {
    // Clients of clouds ask their surroundings for nothing.
    vi.stubEnv("AWS_REGION", "eu-central-1");
    vi.stubEnv("GOOGLE_CLOUD_PROJECT", "project");
  });
  afterAll(() => void vi.unstubAllEnvs());

  it.each(TABLE)("make $address of $kind valid: $valid", async ({ address, open, valid }) => {
    if (valid) {
      await using service = await open(address);
      expect(service).toBeDefined();
    } else {
      await expect(open(address)).rejects.toMatchObject({
        name: "CastoreError",
        code: "invalid_argument",
      });
    }
  });
});

/** Every kind of halves, as they may stand in the query of another address without being encoded. */
const HALVES = {
  blobs: (folder: string) => [`pack://${folder}/packs`, `pack://${folder}/few?zstd_level=3`],
  directories: (folder: string) => ["sqlite://", `sqlite://${folder}/half`],
};
const PLAIN_HALVES = (folder: string) => [
  ...VALID.map(([address]) => address).filter((address) =>
    /^(memory|grpc|objectstore)/.test(address),
  ),
  `objectstore+file://${folder}/a+b`,
  "objectstore+s3://bucket/a+b?region=eu-central-1",
  "objectstore+az://container/path?account_name=account",
];

describe.each([
  ["combined", "blobs", openBlobService],
  ["cache", "directories", openDirectoryService],
] as const)(
  "the halves of %s",
  (scheme, kind, open: (address: string) => Promise<AsyncDisposable>) => {
    it.each([...PLAIN_HALVES(folder), ...HALVES[kind](folder)])(
      "may be %s, encoded or plain",
      async (half) => {
        for (const written of [half, encodeURIComponent(half)]) {
          await using near = await open(`${scheme}://?near=${written}&far=memory://`);
          await using far = await open(`${scheme}://?near=memory://&far=${written}`);
          expect([near, far]).toEqual([expect.anything(), expect.anything()]);
        }
      },
    );
  },
);

describe.each([
  ["openBlobService", openBlobService],
  ["openDirectoryService", openDirectoryService],
])("%s", (_, open: (address: string) => Promise<AsyncDisposable>) => {
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
    ["sled:///path", "is not offered, use"],
    ["redb:", '"redb" is not offered, use'],
    ["redb:/x", '"redb" is not offered, use'],
    ["redb:///x?key=hunter2", '"redb" is not offered, use'],
    ["bigtable://instance", '"bigtable" is not offered, use'],
    ["memory:", "expected a URL"],
    ["", "expected a URL"],
    ["memory://#here", "fragment"],
    ["grpc+unix:///a?x=1&x=2", "twice"],
    ["grpc+unix:///%ff", "percent-encoded"],
    ["toString://", "expected a URL"],
  ])("says why it refuses %s", async (address, reason) => {
    const refusal = open(address);
    await expect(refusal).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(reason),
    });
    await expect(refusal).rejects.not.toThrow("hunter2");
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
    [`pack://${folder}/y?zstd_level=fast`, "zstd_level"],
    [`pack://${folder}/y?zstd_level=23`, "zstd_level"],
    [`pack://${folder}/y?colour=red`, "colour"],
    [`pack://${folder}/y?avg_chunk_size=1000`, "power of two"],
    [`pack://${folder}/y?max_pack_size=0`, "max_pack_size"],
    [`pack://${folder}/y?max_pack_size=1e6`, "max_pack_size"],
    [`pack://${folder}/y?zstd_level=`, "zstd_level"],
    [`pack://${folder}/y?path=/other`, '"path"'],
    ["pack://host/x", 'found "host"'],
  ])("refuses %s, and creates nothing", async (address, reason) => {
    await expect(openBlobService(address)).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(reason),
    });
    expect(existsSync(join(folder, "y"))).toBe(false);
  });
});

describe("openDirectoryService", () => {
  it("opens a database", async () => {
    await using service = await openDirectoryService(`sqlite://${folder}/directories`);
    expect(service).toBeDefined();
  });

  it.each([`sqlite://${folder}/z?path=/other`, "sqlite://?path=/a&path=/b"])(
    "refuses %s",
    async (address) => {
      await expect(openDirectoryService(address)).rejects.toMatchObject({
        code: "invalid_argument",
        message: expect.stringContaining('"path"'),
      });
    },
  );
});
