/**
 * Bundles the command into `dist`: the program, one module for each kind of work of a lane, and what is loaded only where
 * it is needed. Packages with native code, and the clients of clouds, stay outside.
 */
import { readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const here = new URL("../", import.meta.url);
const manifest = JSON.parse(readFileSync(new URL("package.json", here), "utf8"));
const castore = new URL("../castore/src/", here);

const dist = fileURLToPath(new URL("dist", here));
rmSync(dist, { recursive: true, force: true });

/** Rooms and modules of ours that only some addresses and options need. */
const LATER = [
  "castore/src/address/integer-key.ts",
  "castore/src/composition/keys.ts",
  "castore/src/composition/toml.ts",
  "castore/src/grpc/",
  "castore/src/objectstore/azure.ts",
  "castore/src/objectstore/file.ts",
  "castore/src/objectstore/gcs.ts",
  "castore/src/objectstore/http",
  "castore/src/objectstore/s3.ts",
  "castore/src/worker/lane-thread.ts",
  "store/src/grpc.ts",
  "store/src/keys.ts",
  "store/src/nar/grpc-",
  "store/src/pathinfoservice/binary-cache-client.ts",
  "store/src/pathinfoservice/grpc.ts",
  "store/src/pathinfoservice/nix-http.ts",
  "store/src/pathinfoservice/upstream-host.ts",
  "store/src/rpc/",
];

/** Tells whether a module is loaded by whatever stores or reads something, in a lane as well. */
function isCore(id: string): boolean {
  const isOurs = /packages\/(castore|store)\/src\//.test(id);
  return isOurs && !LATER.some((part) => id.includes(`packages/${part}`));
}

const source = (path: string, base: URL) => fileURLToPath(new URL(path, base));
await using bundle = await rolldown({
  input: {
    main: source("src/main.ts", here),
    "lane-thread": source("worker/lane-thread.ts", castore),
    prepare: source("blobservice/pack/prepare.ts", castore),
    "commit-thread": source("blobservice/pack/commit-thread.ts", castore),
    "decode-chunks": source("blobservice/pack/decode-chunks.ts", castore),
    "read-thread": source("blobservice/pack/read-thread.ts", castore),
    "read-files": source("blobservice/read-files.ts", castore),
    "prepare-frames": source("grpc/client/prepare-frames.ts", castore),
    "bzip2-decoder": source("compression/bzip2-decoder.ts", castore),
  },
  platform: "node",
  onLog(level, log, defaultHandler) {
    if (log.code === "UNRESOLVED_IMPORT") throw new Error(log.message); // it would be left to whoever runs the command
    defaultHandler(level, log);
  },
  preserveEntrySignatures: "allow-extension",
  external: Object.keys({
    ...manifest.dependencies,
    ...manifest.optionalDependencies,
    ...manifest.peerDependencies,
  }).map((name) => new RegExp(`^${name}(/|$)`)),
});
const { output } = await bundle.write({
  dir: dist,
  format: "esm",
  // All in one folder: a module names a lane's module as its neighbour.
  entryFileNames: "[name].js",
  chunkFileNames: "[name]-[hash].js",
  codeSplitting: {
    // One file is loaded much faster than many.
    groups: [{ name: "core", test: isCore }],
    includeDependenciesRecursively: false,
  },
});

// A module that core needs and that needs core would run before core has.
const chunks = new Map(
  output.flatMap((chunk) => ("imports" in chunk ? [[chunk.fileName, chunk]] : [])),
);
for (const { fileName, imports } of chunks.values()) {
  const wrong = imports.filter((name) => chunks.get(name)?.imports.includes(fileName));
  if (wrong.length > 0) throw new Error(`Cannot bundle: ${fileName} and ${wrong} need each other`);
}
