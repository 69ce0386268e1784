import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pLimit from "p-limit";
import { afterAll, describe, expect, it } from "vitest";
import { temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";
import { canBeOther, missingOther, OTHER_UID } from "./other-user.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());

/** The arguments that import a file into a blob service. */
function importInto(blobs: string): string[] {
  const others = throughDaemon("memory://").slice(1);
  return ["import", import.meta.filename, `--blob-service-addr=${blobs}`, ...others];
}

/** The arguments that import a file into the stores that a text of TOML describes. */
function importIntoToml(name: string, text: string): string[] {
  const file = join(folder.path, `${name}.toml`);
  writeFileSync(file, text);
  return ["import", import.meta.filename, "--store-composition", file];
}

/** What is typed, and what the answer says. */
const MISTAKES: readonly (readonly [args: readonly string[], answer: string])[] = [
  [["improt"], "unknown command 'improt'\n(Did you mean import?)"],
  [["token", "creat"], "unknown command 'creat'\n(Did you mean create?)"],
  [["import", "--achive", "x"], "unknown option '--achive'\n(Did you mean --archive?)"],
  [["cat", "x", "--log-level=loud"], "Allowed choices are trace, debug, info, warn, error, silent"],
  [
    importInto("s3://bucket/key?region=x"),
    'found "s3"; did you mean "objectstore+s3://bucket/key?..."?',
  ],
  [
    importInto("http://host:1"),
    'did you mean "grpc+http://host:1" or "objectstore+http://host:1"?',
  ],
  [importInto("pack://tmp/x"), 'expected no host, found "tmp"; did you mean "pack:///tmp/x"?'],
  [importInto("pack:/tmp/x"), 'did you mean "pack:///tmp/x"?'],
  [importInto("/tmp/x"), 'did you mean "pack:///tmp/x"?'],
  [importInto("localhost:8000"), 'did you mean "grpc+http://localhost:8000"?'],
  [importInto("pakc:///tmp/x"), 'did you mean "pack:///tmp/x"?'],
  [
    importInto("pack:///tmp/x?zstd_lvl=3"),
    'unknown key "zstd_lvl": did you mean "zstd_level"? (expected zstd_level, avg_chunk_size, max_pack_size)',
  ],
  [importInto("objectstore+s3://bucket?regoin=x"), 'unknown key "regoin": did you mean "region"?'],
  [
    importIntoToml("type", '[blobservices.default]\ntype = "pakc"'),
    'type.toml": line 2, column 1: [blobservices.default]: expected the type of a blob service (memory, pack, grpc, objectstore, combined), found "pakc"; did you mean "pack"?',
  ],
  [
    importIntoToml("key", '[blobservices.default]\ntype = "pack"\n  pth = "/x"'),
    'line 1, column 1: [blobservices.default]: expected key "path", found none',
  ],
  [
    importIntoToml(
      "unknown",
      '[blobservices.default]\ntype = "pack"\npath = "/x"\n  zstdlevel = 3',
    ),
    'line 4, column 3: [blobservices.default]: unknown key "zstdlevel": did you mean "zstd_level"?',
  ],
  [
    importIntoToml("kind", '[blobservice.default]\ntype = "memory"'),
    'line 1, column 1: unknown key "blobservice": did you mean "blobservices"?',
  ],
  [
    importIntoToml(
      "reference",
      '[blobservices.packs]\ntype = "memory"\n[blobservices.default]\ntype = "combined"\nnear = "memory://"\nfar = "pakcs"',
    ),
    'line 6, column 1: [blobservices.default]: key "far": Cannot open [blobservices.pakcs]: expected the name of a blob service (packs, default), found "pakcs"; did you mean "packs"?',
  ],
  [
    ["import", import.meta.filename, ...throughDaemon(`grpc+unix://${folder.path}/none`)],
    `Cannot reach the store at grpc+unix://${folder.path}/none (no such file or directory); start one with "tvix-store daemon", or name a store with --blob-service-addr`,
  ],
  [
    ["import", import.meta.filename, ...throughDaemon("grpc+http://127.0.0.1:1")],
    'Cannot reach the store at grpc+http://127.0.0.1:1 (connection refused); start one with "tvix-store daemon"',
  ],
];

describe("a mistake in", () => {
  it("arguments, addresses and files is answered with status 1 and what was probably meant", async () => {
    const atOnce = pLimit(3);
    const check = async (args: readonly string[], answer: string) => {
      const { status, stdout, stderr } = await tvixStore(args);
      expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
      expect(stderr).toMatch(/^tvix-store: [^\n]*(\n\([^\n]*\))?\n$/);
      expect(stderr).toContain(answer);
    };
    await Promise.all(MISTAKES.map(([args, answer]) => atOnce(check, args, answer)));
  });

  it.skipIf(!canBeOther)(
    `what may not be read is named, and the others are stored${missingOther}`,
    async () => {
      chmodSync(folder.path, 0o755);
      const [secret, open] = ["secret", "open"].map((name) => join(folder.path, name));
      writeFileSync(secret!, "", { mode: 0o600 });
      writeFileSync(open!, "");
      const args = ["import", secret!, open!, ...throughDaemon("memory://")];
      const outcome = await tvixStore(args, { uid: OTHER_UID, env: { HOME: folder.path } });
      expect(outcome).toMatchObject({ status: 1, stdout: expect.stringMatching(/^\S+-open\n$/) });
      expect(outcome.stderr).toMatch(/^tvix-store: .*secret": .*EACCES\n.*1 of 2 paths failed\n$/);
    },
  );
});
