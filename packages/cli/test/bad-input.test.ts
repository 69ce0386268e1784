import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { blake3Digest, Directory, encodeDirectory } from "@tvix/castore";
import {
  BlobBatchService,
  BlobService,
  DirectorySchema,
  DirectoryService,
  NodeSchema,
} from "@tvix/proto/castore";
import { PathInfoService } from "@tvix/proto/store";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ConnectChannel, openConnectChannel } from "./connect-client.ts";
import { type Daemon, embeddedIn, startDaemon, temporaryFolder } from "./harness.ts";

const folder = temporaryFolder();
let daemon: Daemon;
let channel: ConnectChannel;
beforeAll(async () => {
  daemon = await startDaemon([
    ...[`${folder.path}/sock`, "127.0.0.1:0"].map((address) => `--listen-address=${address}`),
    ...embeddedIn(folder.path),
  ]);
  channel = openConnectChannel(`${folder.path}/sock`);
});
afterAll(async () => {
  channel[Symbol.dispose]();
  await daemon[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

const blobs = () => channel.clientOf(BlobService);
const batches = () => channel.clientOf(BlobBatchService);
const directories = () => channel.clientOf(DirectoryService);
const pathInfos = () => channel.clientOf(PathInfoService);

async function* messages<T>(...list: readonly T[]): AsyncGenerator<T> {
  yield* list;
}

/** Reads a stream to its end. */
async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
}

const UNKNOWN = blake3Digest(Buffer.from("unknown")).bytes;
const EMPTY = encodeDirectory(Directory.from([]));
const { digest } = EMPTY;
type DirectoryInit = MessageInitShape<typeof DirectorySchema>;
const folderNode = (name: string, size = 0n) => ({
  name: Buffer.from(name),
  digest: digest.bytes,
  size,
});
const fileNode = (name: string) => ({ name: Buffer.from(name), digest: UNKNOWN, size: 1n });

describe("the daemon answers", () => {
  it.each<[string, Code, string, () => Promise<unknown>]>([
    [
      "Stat of a short digest",
      Code.InvalidArgument,
      "expected 32",
      () => blobs().stat({ digest: UNKNOWN.subarray(1) }),
    ],
    ["Read of no digest", Code.InvalidArgument, "expected 32", () => drain(blobs().read({}))],
    [
      "Stat of an unknown blob",
      Code.NotFound,
      "not found",
      () => blobs().stat({ digest: UNKNOWN, sendChunks: true }),
    ],
    [
      "Read of an unknown blob",
      Code.NotFound,
      "not found",
      () => drain(blobs().read({ digest: UNKNOWN })),
    ],
    [
      "a batch of a short digest",
      Code.InvalidArgument,
      "expected 32",
      () => batches().has({ digests: [UNKNOWN, UNKNOWN.subarray(1)] }),
    ],
    [
      "a batch of too many blobs",
      Code.InvalidArgument,
      "at most 16384 blobs",
      () => batches().has({ digests: Array.from({ length: 16_385 }, () => UNKNOWN) }),
    ],
    [
      "a batch to read of too many bytes",
      Code.InvalidArgument,
      "at most 4194304 bytes",
      () => batches().read({ blobs: [1, 2].map(() => ({ digest: UNKNOWN, size: 2n ** 62n })) }),
    ],
    [
      "a batch to put of too many bytes",
      Code.InvalidArgument,
      "at most 4194304 bytes",
      () => batches().put({ contents: [1, 2, 3].map(() => new Uint8Array(1_500_000)) }),
    ],
    ["Get of no digest", Code.InvalidArgument, "no digest", () => drain(directories().get({}))],
    [
      "Get of an unknown directory",
      Code.NotFound,
      "not found",
      () => drain(directories().get({ byWhat: { case: "digest", value: UNKNOWN } })),
    ],
    [
      "Get of a short hash part",
      Code.InvalidArgument,
      "expected 20",
      () => pathInfos().get({ byWhat: { case: "byOutputHash", value: new Uint8Array(19) } }),
    ],
    ["Get of no hash part", Code.InvalidArgument, "no hash part", () => pathInfos().get({})],
    [
      "Get of an unknown PathInfo",
      Code.NotFound,
      "not found",
      () => pathInfos().get({ byWhat: { case: "byOutputHash", value: new Uint8Array(20) } }),
    ],
    ["Put of a PathInfo without a node", Code.InvalidArgument, "node: ", () => pathInfos().put({})],
    [
      "Put of a PathInfo whose node name is no store path",
      Code.InvalidArgument,
      "hello",
      () =>
        pathInfos().put({
          node: { node: { case: "file", value: fileNode("hello") } },
          narinfo: { narSha256: UNKNOWN },
        }),
    ],
    [
      "CalculateNAR of no node",
      Code.InvalidArgument,
      "found none",
      () => pathInfos().calculateNAR(create(NodeSchema)),
    ],
    [
      "CalculateNAR of a node with a name",
      Code.InvalidArgument,
      "expected an empty name",
      () => pathInfos().calculateNAR({ node: { case: "file", value: fileNode("name") } }),
    ],
    [
      "CalculateNAR of an unknown blob",
      Code.NotFound,
      "is missing",
      () => pathInfos().calculateNAR({ node: { case: "file", value: fileNode("") } }),
    ],
  ])("%s with a clear error", async (_, code, reason, call) => {
    await expect(call()).rejects.toMatchObject({
      code,
      rawMessage: expect.stringContaining(reason),
    });
  });

  it("a recursive Get of an unknown directory with a stream that is empty and ends well", async () => {
    const request = { byWhat: { case: "digest", value: UNKNOWN }, recursive: true } as const;
    expect(await Array.fromAsync(directories().get(request))).toEqual([]);
  });

  it.each<[string, string, DirectoryInit[]]>([
    ["no directory at all", "expected a directory, found none", []],
    [
      "a reference to a directory that did not come",
      "expected that directory before it",
      [{ directories: [folderNode("a")] }],
    ],
    [
      "directories in the wrong order",
      "expected that directory before it",
      [{ directories: [folderNode("a")] }, {}],
    ],
    [
      "a wrong size",
      "states size 5, which directory",
      [{}, { directories: [folderNode("a", 5n)] }],
    ],
    ["a directory that is not reached", "cannot be reached", [{}, { files: [fileNode("x")] }]],
    [
      "names out of order",
      "expected strictly ascending names",
      [{ files: [fileNode("b"), fileNode("a")] }],
    ],
    [
      "a name twice in one list",
      "expected strictly ascending names",
      [{ files: [fileNode("a"), fileNode("a")] }],
    ],
    [
      "a name in two lists",
      "occurs twice",
      [{}, { directories: [folderNode("a")], files: [fileNode("a")] }],
    ],
    ["the name ..", 'neither "." nor ".."', [{ files: [fileNode("..")] }]],
    ["a name with a slash", 'no "/"', [{ files: [fileNode("a/b")] }]],
    ["an empty name", "at least 1 byte", [{ files: [fileNode("")] }]],
    [
      "a short digest",
      "expected 32",
      [{ files: [{ ...fileNode("a"), digest: UNKNOWN.subarray(1) }] }],
    ],
    [
      "a symlink to nowhere",
      "expected 1 to 4095 bytes",
      [{ symlinks: [{ name: Buffer.from("a") }] }],
    ],
    [
      "a size above 64 bits",
      "exceeds 64 bits",
      [{ directories: [folderNode("a", 2n ** 64n - 1n)] }],
    ],
  ])("Put of %s with INVALID_ARGUMENT, and stores nothing", async (_, reason, list) => {
    const putting = directories().put(
      messages(...list.map((init) => create(DirectorySchema, init))),
    );
    await expect(putting).rejects.toMatchObject({
      code: Code.InvalidArgument,
      rawMessage: expect.stringContaining(reason),
    });
    const getting = drain(directories().get({ byWhat: { case: "digest", value: digest.bytes } }));
    await expect(getting).rejects.toMatchObject({ code: Code.NotFound });
  });

  it("a blob Put without a message with the digest of no bytes, which is what clients send for it", async () => {
    const response = await blobs().put(messages());
    expect(Buffer.from(response.digest).toString("hex")).toBe(digest.hex);
  });

  it("a message that is too large with RESOURCE_EXHAUSTED, and goes on", async () => {
    const data = Buffer.alloc(33 * 1024 * 1024);
    const nodeOptions = { maxSessionMemory: 100 };
    const baseUrl = `http://${daemon.addresses.find((address) => address.startsWith("127."))}`;
    const client = createClient(BlobService, createGrpcTransport({ baseUrl, nodeOptions })); // sends anything
    await expect(client.put(messages({ data }))).rejects.toMatchObject({
      code: Code.ResourceExhausted,
    });
    expect((await blobs().put(messages({ data: Buffer.from("x") }))).digest.length).toBe(32);
  });

  it("every call with one structured line in its log", () => {
    const lines = daemon.log.filter(({ msg }) => msg === "call");
    expect(lines.length).toBeGreaterThan(25);
    expect(lines[0]).toMatchObject({
      service: "tvix.castore.v1.BlobService",
      method: "Stat",
      code: "invalid_argument",
      durationMs: expect.any(Number),
    });
  });
});
