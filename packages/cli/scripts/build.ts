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

const source = (path: string, base: URL) => fileURLToPath(new URL(path, base));
await using bundle = await rolldown({
  input: {
    main: source("src/main.ts", here),
    "lane-thread": source("worker/lane-thread.ts", castore),
    prepare: source("blobservice/pack/prepare.ts", castore),
    "commit-thread": source("blobservice/pack/commit-thread.ts", castore),
    "read-thread": source("blobservice/pack/read-thread.ts", castore),
    "read-files": source("blobservice/read-files.ts", castore),
    "prepare-frames": source("grpc/client/prepare-frames.ts", castore),
    "bzip2-decoder": source("compression/bzip2-decoder.ts", castore),
  },
  platform: "node",
  external: Object.keys({
    ...manifest.dependencies,
    ...manifest.optionalDependencies,
    ...manifest.peerDependencies,
  }).map((name) => new RegExp(`^${name}(/|$)`)),
});
await bundle.write({
  dir: dist,
  format: "esm",
  // All in one folder: a module names a lane's module as its neighbour.
  entryFileNames: "[name].js",
  chunkFileNames: "[name]-[hash].js",
  sourcemap: false,
});
