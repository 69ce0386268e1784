import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { embeddedIn, throughDaemon } from "./harness.ts";

/** What is typed, and a part of each line of the answer. */
export interface Mistake {
  readonly args: readonly string[];
  readonly answers: readonly string[];
  /** Default: 1. */
  readonly status?: number;
  readonly env?: NodeJS.ProcessEnv;
}

/** What mistakes are made in. */
export const MISTAKE_KINDS = [
  "words",
  "values",
  "addresses",
  "compositions",
  "objects",
  "contents",
  "servers",
] as const;

type MistakeKind = (typeof MISTAKE_KINDS)[number];

const MEMORY = throughDaemon("memory://");
const DIGEST = "0".repeat(64);
const ABSENT = "0".repeat(32);

/** Stores of which one is a cache in front of the daemon on localhost:8000. */
const OWN_COMPOSITION = `
  [blobservices.default]
  type = "combined"
  near = "memory://"
  far = "combined://?near=memory://&far=grpc+http%3A%2F%2Flocalhost%3A8000"
  [directoryservices.default]
  type = "memory"
  [pathinfoservices.default]
  type = "memory"
`;

/** A file that is there. */
const FILE = import.meta.filename;

/**
 * Returns mistakes, by what they are made in.
 *
 * @param folder a folder with a file `file`, a folder `tree`, and embedded stores in `store`
 * @param storePath a folder that is stored there, with a file `text` and a symlink `link` to it
 */
export function mistakesIn(
  folder: string,
  storePath: string,
): Readonly<Record<MistakeKind, readonly Mistake[]>> {
  const at = (name: string) => join(folder, name);
  const store = embeddedIn(at("store"));
  let files = 0;
  const written = (text: string, ending = "toml") => {
    const path = at(`${files++}.${ending}`);
    writeFileSync(path, text);
    return path;
  };
  const blobs = (address: string) => [
    ...["import", FILE, `--blob-service-addr=${address}`],
    ...MEMORY.slice(1),
  ];
  const described = (text: string) => ["import", FILE, "--store-composition", written(text)];
  const daemon = (...args: string[]) => ["daemon", "-l", "127.0.0.1:0", ...MEMORY, ...args];
  const graph = (text: string) => ["copy", written(text, "json"), ...MEMORY];
  const mistake = (args: readonly string[], ...answers: string[]): Mistake => ({ args, answers });
  const noKey = written("garbage", "key");

  return {
    words: [
      mistake(["improt"], "unknown command 'improt'\n(Did you mean import?)"),
      mistake(["improt", "--help"], "unknown command 'improt'\n(Did you mean import?)"),
      mistake(["help", "token", "creat"], "unknown command 'creat'\n(Did you mean create?)"),
      mistake(["import", "--achive", "x"], "unknown option '--achive'\n(Did you mean --archive?)"),
      mistake(["cat"], "missing required argument 'object'"),
      mistake(
        ["nar", "a", "b"],
        "too many arguments for 'nar'. Expected 1 argument but got 2: a, b.",
      ),
      mistake(["completion", "tcsh"], "Allowed choices are bash, zsh, fish"),
      mistake(["config", "show", "nosuch"], 'options of "nosuch": expected daemon, nar-bridge, '),
      mistake(["config", "show", "token", "creat"], '"token creat": did you mean "create"?'),
    ],
    values: [
      mistake(["cat", "x", "--log-level=loud"], "Allowed choices are trace, debug, info, warn"),
      { ...mistake(["cat", "x"], "from env 'LOG_FORMAT' is invalid."), env: { LOG_FORMAT: "xml" } },
      mistake(["import", FILE, "--progress=x"], "Allowed choices are auto, plain, none"),
      mistake(
        ["import", FILE, "--store-mode=644"],
        "expected three octal digits, the first of them 7",
      ),
      mistake(
        ["import", FILE, ...MEMORY, "--exclude="],
        'pattern "" of --exclude: expected a name',
      ),
      mistake(["import", FILE, "--name=a b", ...MEMORY], 'found " "'),
      mistake(["copy", "--to=./x", storePath, "--zstd-level=99"], 'expected 1 to 22, found "99"'),
      mistake(["daemon", "--workers=0"], 'expected a number from 1, found "0"'),
      mistake(["daemon", "--shutdown-timeout=x"], "expected a number with ms, s, m or h"),
      mistake(["daemon", "--max-upload-size=1GB"], "one with KiB, MiB, GiB or TiB, found"),
      mistake(["daemon", "--header-timeout=10"], "expected a number with ms, s, m or h"),
      mistake(
        ["daemon", "--unix-listen-chmod=999"],
        "expected owner, group, everybody or an octal",
      ),
      mistake(["daemon", "--cache-priority=x"], "expected a natural number"),
      mistake(["daemon", "--upstream-absent-ttl=x"], "expected a number of seconds"),
      mistake(["mount", at("tree"), "--timeout=x"], "expected whole seconds"),
      mistake(["mount", at("tree"), "--threads=0"], "expected 1 to 999"),
    ],
    addresses: [
      mistake(
        blobs("s3://bucket/key?region=x"),
        'found "s3"; did you mean "objectstore+s3://bucket/key?..."?',
      ),
      mistake(
        blobs("http://host:1"),
        'did you mean "grpc+http://host:1" or "objectstore+http://host:1"?',
      ),
      mistake(
        blobs("pack://tmp/x"),
        'expected no host, found "tmp"; did you mean "pack:///tmp/x"?',
      ),
      mistake(blobs("pack:/tmp/x"), 'did you mean "pack:///tmp/x"?'),
      mistake(blobs("/tmp/x"), 'did you mean "pack:///tmp/x"?'),
      mistake(blobs("localhost:8000"), 'did you mean "grpc+http://localhost:8000"?'),
      mistake(
        blobs("grpc://host:1"),
        'did you mean "grpc+http://host:1" or "grpc+https://host:1"?',
      ),
      mistake(blobs("pakc:///tmp/x"), 'did you mean "pack:///tmp/x"?'),
      mistake(blobs("redb:///tmp/x"), 'scheme "redb" is not offered, use "pack"'),
      mistake(blobs("sqlite:///tmp/x"), "expected the scheme of a blob service (memory, pack, "),
      mistake(blobs("gopher://host"), '"gopher"'),
      mistake(blobs("memory://host"), 'found "host"'),
      mistake(blobs("pack://"), "expected a path"),
      mistake(blobs("grpc+http://localhost/path"), 'found "/path"'),
      mistake(blobs("nonsense"), "expected a URL such as"),
      mistake(blobs("grpc+http://host:99999"), 'expected a port up to 65535, found "99999"'),
      mistake(
        blobs("pack:///tmp/x?zstd_lvl=3"),
        'unknown key "zstd_lvl": did you mean "zstd_level"? (expected zstd_level, avg_chunk_size, max_pack_size)',
      ),
      mistake(
        blobs("pack:///tmp/x?zstd_level=99"),
        'key "zstd_level": expected an integer from 1 to 22',
      ),
      mistake(blobs("objectstore+s3://bucket?regoin=x"), 'key "regoin": did you mean "region"?'),
      mistake(
        blobs("pack:///proc/x"),
        "expected a file system that can be written; make it writable",
      ),
      mistake(blobs(`pack://${at("file")}`), "expected a folder or nothing there, found a file"),
      mistake(
        blobs("grpc+http://none.invalid:1"),
        "Cannot reach the store at grpc+http://none.invalid:1 (its host has no address, ENOTFOUND)",
      ),
      mistake(
        ["import", FILE, ...throughDaemon(`grpc+unix://${at("none")}`)],
        `Cannot reach the store at grpc+unix://${at("none")} (no such file or directory); start one there with "tvix-store daemon", or name another store`,
      ),
      mistake(
        ["copy", "--from=grpc+http://127.0.0.1:1", `--to=${at("other")}`, storePath],
        'at grpc+http://127.0.0.1:1 (connection refused); start one there with "tvix-store daemon"',
      ),
      mistake(["copy", "--to=nowhere", storePath], 'a folder such as "./nowhere" or a TOML file'),
      mistake(
        ["copy", "--to=./x", "--from=pack:///x", storePath],
        "it has blobs, but no directories",
      ),
      mistake(["copy", "--to=objectstore+s3://b", storePath], "no path infos; describe all three"),
      mistake(["copy", "--to=nix+https://host", storePath], "can be copied from only"),
      mistake(["copy", "--to=local", storePath], "can be copied from only"),
      mistake(["copy", "--from=local?key=1", "--to=./x", storePath], 'found "key"'),
      mistake(["copy", "--from=gopher://host", "--to=./x", storePath], 'found "gopher:"'),
      mistake(["copy", "--to=./x", `b3:${DIGEST}`], "found a digest"),
      mistake(["copy", "--to=./x", `${storePath}/file`], "found a path below one"),
      mistake(["copy", "--closure", "graph"], "expected --from or --to with store paths"),
      mistake(["copy"], "expected a path, found none"),
      mistake(["copy", "none.json"], 'Cannot read reference graph "none.json"'),
      mistake(
        ["copy", `--from=${at("tree")}`, `--to=${at("other")}`, storePath],
        `path-infos.sqlite: Cannot open it: expected a store, found no "${at("tree")}/path-infos.sqlite"; check`,
      ),
      mistake(
        ["copy", `--from=local?root=${at("none")}`, `--to=${at("other")}`, storePath],
        'nix/var/nix/db/db.sqlite": there is no such file',
      ),
    ],
    compositions: [
      mistake(
        described('[blobservices.default]\ntype = "pack"'),
        'line 1, column 1: [blobservices.default]: expected key "path", found none',
      ),
      mistake(
        described('[blobservices.default]\ntype = "pakc"'),
        'toml": line 2, column 1: [blobservices.default]: expected the type of a blob service (memory, pack, grpc, objectstore, combined), found "pakc"; did you mean "pack"?',
      ),
      mistake(
        described('[blobservices.default]\ntype = "pack"\n  pth = "/x"'),
        'line 3, column 3: [blobservices.default]: unknown key "pth": did you mean "path"?',
      ),
      mistake(
        described('[blobservices.default]\ntype = "pack"\npath = "/x"\n  zstdlevel = 3'),
        'line 4, column 3: [blobservices.default]: unknown key "zstdlevel": did you mean "zstd_level"?',
      ),
      mistake(
        described('[blobservice.default]\ntype = "memory"'),
        'line 1, column 1: unknown key "blobservice": did you mean "blobservices"?',
      ),
      mistake(
        described(
          '[blobservices.packs]\ntype = "memory"\n[blobservices.default]\ntype = "combined"\nnear = "memory://"\nfar = "pakcs"',
        ),
        'line 6, column 1: [blobservices.default]: key "far": Cannot open [blobservices.pakcs]: expected the name of a blob service (packs, default), found "pakcs"; did you mean "packs"?',
      ),
      mistake(
        described(
          'blobservices.default.type = "memory"\ndirectoryservices.default.type = "memory"',
        ),
        "expected a PathInfo service [pathinfoservices.default], found none",
      ),
      mistake(
        ["import", FILE, "--store-composition", at("tree")],
        `Cannot read store composition "${at("tree")}": illegal operation on a directory`,
      ),
    ],
    objects: [
      mistake(
        ["ls", ...store, "nonsense", ABSENT, `${storePath}/none`, `${storePath}/../x`],
        '"HASH" (32 characters of nixbase32) or "b3:DIGEST"',
        `Cannot find "${ABSENT}": the store has no such store path`,
        `"${storePath}" has no entry "none"`,
        'expected a path without ".."',
      ),
      mistake(
        ["cat", ...store, storePath, `${storePath}/text/x`, `${storePath}/link`],
        "expected a file, found a directory",
        `"${storePath}/text" is a file`,
        'expected a file, found a symlink to "text"',
      ),
      mistake(["nar", ...store, `b3:${DIGEST}`], "neither a directory nor a blob of this digest"),
      mistake(["restore", ...store, storePath, at("tree")], "it exists already"),
      mistake(
        ["restore", ...store, storePath, at("none/x")],
        `the folder "${at("none")}" does not`,
      ),
      mistake(["nar", ...store, storePath, "-o", at("none/x")], ": no such file or directory"),
      mistake(
        ["sign", ...store, "-k", noKey, `${storePath}/text`],
        "expected a name, a colon, and 64",
      ),
      mistake(["sign", ...store, "-k", at("none"), storePath], "Cannot read signing key"),
      mistake(["sign", "-k", "none", "--all", storePath], "found both"),
      { ...mistake(["diff", ...store, storePath, ABSENT], "no such store path"), status: 2 },
      {
        ...mistake(
          ["ls", ...store, `/opt/store/${storePath.slice("/nix/store/".length)}`],
          "NIX_STORE_DIR",
        ),
        env: { NIX_STORE_DIR: "/opt/store" },
      },
    ],
    contents: [
      mistake(["import"], "expected a path or --archive, found neither"),
      mistake(["import", "--name=x", "a", "b"], "expected --name with a single path, found 2"),
      mistake(["import", "--strip-components=1", "a"], "with --archive only"),
      mistake(["import", "--strip-components=x", "--archive=a"], "expected a natural number"),
      mistake(["import", "--references", "a"], '--references took "a"'),
      mistake(["import", "--archive=-"], "expected a --name for --archive -"),
      mistake(["import", "--archive=x.tar", "path"], "found both"),
      mistake(["import", "--archive=none.tar", ...MEMORY], 'none.tar": there is no such file'),
      mistake(["import", "--archive", process.execPath, ...MEMORY], "expected a tar header"),
      mistake(["import", "--archive=with space.tar", ...MEMORY], '"with space"'),
      mistake(
        ["import", FILE, ...MEMORY, "--references", written("garbage", "txt")],
        'line 1: Cannot parse store path "garbage": expected 32 characters, a dash and a name',
      ),
      mistake(["import", "--closure", FILE, ...MEMORY], "expected a store path of a local Nix"),
      mistake(graph("{"), "it is no JSON: Expected property name"),
      mistake(graph("{}"), 'expected key "closure", found none'),
      mistake(
        graph('{"closure": [{"path": "x"}]}'),
        'expected key "closure.0.narHash", found none',
      ),
    ],
    servers: [
      mistake(["daemon", "-l", "nonsense", ...MEMORY], "found neither a port nor a path"),
      mistake(
        ["daemon", "-l", "localhost:99999", ...MEMORY],
        'found the port "99999" instead of one',
      ),
      mistake(["daemon", "-l", at("none/sock"), ...MEMORY], "expected a folder for the socket"),
      mistake(["daemon", "-l", "sd-listen", ...MEMORY], "expected a socket from systemd"),
      mistake(["daemon", "-l", "inetd", ...MEMORY], "expected a connection on stdin"),
      {
        ...mistake(["daemon", "-l", "127.0.0.1:8000"], "the address that the daemon listens on"),
        env: { BLOB_SERVICE_ADDR: "grpc+http://localhost:8000" },
      },
      mistake(
        ["daemon", "-l", at("sock"), ...throughDaemon(`grpc+unix://${at("sock")}`)],
        `Cannot use the store at grpc+unix://${at("sock")}: expected another store`,
      ),
      mistake(
        ["daemon", "-l", "127.0.0.1:8000", "--store-composition", written(OWN_COMPOSITION)],
        "Cannot use the store at grpc+http://localhost:8000: expected another store",
      ),
      mistake(
        [
          "nar-bridge",
          "-l",
          "127.0.0.1:8000",
          ...MEMORY,
          "--upstream=http://localhost:8000?priority=1",
        ],
        "Cannot use the store at http://localhost:8000: expected another store",
      ),
      mistake(
        daemon("--cache-object-addr=sqlite:///proc/x"),
        "expected a file system that can be written; make it writable for this user, or name another with --cache-object-addr",
      ),
      mistake(daemon("--upstream=nonsense"), 'expected a URL such as "https://..."'),
      mistake(daemon("--upstream=ftp://x"), "expected a URL with http: or https:"),
      mistake(
        daemon("--upstream=https://cache.nixos.org?trusted-public-keys=x"),
        'Cannot use upstream "https://cache.nixos.org?...": key "trusted-public-keys": expected a name',
      ),
      mistake(
        daemon("--signing-key-file", noKey),
        `Cannot read signing key "${noKey}": Cannot use secret key: expected a name, a colon, and 64`,
      ),
      mistake(
        daemon("--auth-file", written('anonymous = "write"')),
        'line 1, column 1: key "anonymous": expected read, none',
      ),
      mistake(daemon("--auth-file", noKey), "line 1, column 1: expected TOML, found none"),
      mistake(daemon("--tls-cert", noKey), "found no --tls-key"),
      mistake(
        daemon("--tls-cert", noKey, "--tls-key", noKey),
        `Cannot use TLS files "${noKey}", "${noKey}": expected a certificate and its key in PEM`,
      ),
      mistake(
        ["virtiofs", at("tree"), ...MEMORY],
        `Cannot listen on "${at("tree")}": expected no file or a socket there, found another kind of file`,
      ),
      mistake(
        ["virtiofs", at("none/sock"), ...MEMORY],
        `Cannot listen on "${at("none/sock")}": no such file or directory`,
      ),
      mistake(
        ["mount", at("tree"), ...MEMORY, "--cache-dir=/proc/x"],
        'Cannot make folder "/proc/x": expected a file system that can be written',
      ),
      mistake(
        ["mount", at("none"), ...MEMORY],
        'expected a folder, found nothing; make it with "mkdir"',
      ),
    ],
  };
}
