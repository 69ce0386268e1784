import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { toBinary } from "@bufbuild/protobuf";
import {
  B3Digest,
  encodeDirectory,
  nodeToProto,
  openBlobService,
  pathComponent,
  putBlob,
} from "@tvix/castore";
import { openChannel } from "@tvix/castore/grpc";
import { chunksOf, readTreeExpected, readTreeSpecs, writeTree } from "@tvix/conformance";
import { NodeSchema } from "@tvix/proto/castore";
import { encodePathInfo, StorePath } from "@tvix/store";
import { GrpcNarCalculationService } from "@tvix/store/grpc";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import {
  addressesOf,
  type Daemon,
  embeddedIn,
  type Outcome,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

const folder = temporaryFolder();
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");

let daemon: Daemon;
beforeAll(async () => {
  daemon = await startDaemon([`--listen-address=${folder.path}/sock`, ...embeddedIn(folder.path)]);
});
afterAll(async () => {
  await daemon[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

const SPECS = readTreeSpecs();
const expectedOf = (tree: string) => readTreeExpected().find((one) => one.tree === tree)!;

describe.each([
  ["through the daemon", () => throughDaemon(`grpc+unix://${folder.path}/sock`)],
  ["directly", () => embeddedIn(join(folder.path, "direct"))],
])("import %s", (_, serviceArgs) => {
  let outcome: Outcome;
  let services: Awaited<ReturnType<typeof openServices>>;
  beforeAll(async () => {
    using source = temporaryFolder();
    const paths: string[] = [];
    for (const spec of SPECS) {
      const path = join(source.path, spec.tree, spec.name);
      mkdirSync(dirname(path));
      await writeTree(spec, path);
      paths.push(path);
    }
    outcome = await tvixStore(["import", ...paths, ...serviceArgs()]);
    services = await openServices(addressesOf(serviceArgs()));
  });
  afterAll(() => services[Symbol.asyncDispose]());

  it("prints the store paths that the reference has, and warns of symlinks", () => {
    const stdout = SPECS.map(({ tree }) => `${expectedOf(tree).storePath}\n`).join("");
    const symlinks = SPECS.filter(({ entries: [first, ...rest] }) => {
      return first?.type === "symlink" && rest.length === 0;
    });
    const warnings = new RegExp(`^(tvix-store: warning: .*\\n){${symlinks.length}}$`);
    expect(outcome).toEqual({ status: 0, stdout, stderr: expect.stringMatching(warnings) });
  });

  it.each(SPECS.map(({ tree }) => tree))(
    "makes of tree %s what the reference did",
    async (tree) => {
      const expected = expectedOf(tree);
      const { blobService, directoryService, pathInfoService } = services;

      const storePath = StorePath.parseAbsolute(expected.storePath);
      const pathInfo = (await pathInfoService.get(storePath.hashPart))!;
      expect(base64(encodePathInfo(pathInfo))).toBe(expected.pathInfo_base64);
      expect(pathInfo.narSize).toBe(BigInt(expected.narSize));
      expect(Buffer.from(pathInfo.narSha256).toString("hex")).toBe(expected.narSha256_hex);

      const rootNode = nodeToProto(pathComponent(storePath.toString()), pathInfo.node);
      expect(base64(toBinary(NodeSchema, rootNode))).toBe(expected.rootNode_base64);

      const directories: string[] = [];
      if (pathInfo.node.type === "directory") {
        for await (const directory of directoryService.getRecursive(pathInfo.node.digest)) {
          directories.push(base64(encodeDirectory(directory).bytes));
        }
      }
      expect(directories.toSorted()).toEqual(expected.directoriesRootToLeaves_base64.toSorted());
      expect(directories[0]).toBe(expected.directoriesRootToLeaves_base64[0]);

      for (const [digest, { chunks }] of Object.entries(expected.blobs)) {
        const found = await chunksOf(
          blobService,
          B3Digest.fromBytes(Buffer.from(digest, "base64")),
        );
        const cuts = found?.map(({ digest, size }) => ({ digest: base64(digest.bytes), size }));
        expect(cuts?.length === 1 ? [] : cuts).toEqual(chunks);
      }
    },
  );
});

it("a client has the daemon calculate the NAR that the reference has", async () => {
  const contents = Buffer.from("x86_64-linux");
  const address = `grpc+unix://${folder.path}/sock`;
  await using blobService = await openBlobService(address);
  const digest = await putBlob(blobService, contents);
  await using channel = openChannel(address);
  const { narSize, narSha256 } = await new GrpcNarCalculationService(channel).calculateNar({
    type: "file",
    digest,
    size: BigInt(contents.length),
    executable: false,
  });
  const expected = expectedOf("seed-system");
  expect(narSize).toBe(BigInt(expected.narSize));
  expect(Buffer.from(narSha256).toString("hex")).toBe(expected.narSha256_hex);
});
