/**
 * Bundles the command into `dist`: the program, with what is loaded only where it is needed, and the modules that lanes
 * run. Packages with native code, and the clients of clouds, stay outside.
 */
import { readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import {
  type CodeSplittingGroup,
  type InputOptions,
  type Plugin,
  type RolldownBuild,
  rolldown,
} from "rolldown";
import { bundleLanes } from "../../castore/scripts/bundle-lanes.ts";

const here = new URL("../", import.meta.url);
const manifest = JSON.parse(readFileSync(new URL("package.json", here), "utf8"));

const dist = fileURLToPath(new URL("dist", here));
rmSync(dist, { recursive: true, force: true });

/** Rooms and modules of ours that only some addresses and options need. */
const LATER = [
  "castore/src/address/integer-key.ts",
  "castore/src/composition/keys.ts",
  "castore/src/composition/toml",
  "castore/src/grpc/",
  "castore/src/objectstore/azure.ts",
  "castore/src/objectstore/file.ts",
  "castore/src/objectstore/gcs.ts",
  "castore/src/objectstore/http",
  "castore/src/objectstore/s3.ts",
  "castore/src/objectstore/sqlite.ts",
  "store/src/copy/binary-cache-paths.ts",
  "store/src/grpc.ts",
  "store/src/keys.ts",
  "store/src/local-nix/",
  "store/src/nar/grpc-",
  "store/src/pathinfoservice/binary-cache",
  "store/src/pathinfoservice/grpc.ts",
  "store/src/pathinfoservice/nix-http.ts",
  "store/src/pathinfoservice/upstream-host.ts",
  "store/src/rpc/",
];

/** What our modules of {@link isCore core} import: packages, parts of packages, and messages. */
const CORE_IMPORTS: readonly RegExp[] = [
  /\/node_modules\/(cockatiel|leven|lru-cache|p-limit|proxy-from-env|yocto-queue)\//,
  /\/node_modules\/@opentelemetry\/api\/dist\/(api\/(context|diag|trace)|context|diag|internal|trace|version)\b/,
  /packages\/proto\/.*\/protos\/(castore|pathinfo)_pb\.ts$/,
];

/** Tells whether a module is loaded by whatever stores or reads something. */
function isCore(id: string): boolean {
  if (CORE_IMPORTS.some((part) => part.test(id))) return true;
  const isOurs = /packages\/(castore|store)\/src\//.test(id);
  return isOurs && !LATER.some((part) => id.includes(`packages/${part}`));
}

/** Tells whether a module is for commands that use a server. */
function isGrpcClient(id: string): boolean {
  return (
    /packages\/castore\/src\/grpc\/(client|transport)\/(?!call-budget|direct-|encoded-)/.test(id) ||
    /packages\/store\/src\/(pathinfoservice\/grpc|nar\/grpc-.*|grpc)\.ts$/.test(id) ||
    /packages\/proto\/.*\/(rpc_\w+|\w+_batch)_pb\.ts$/.test(id)
  );
}

/** Tells whether a module is for commands that use a store, if several of them do. */
function isOfCommands(id: string): boolean {
  return (
    /packages\/cli\/src\/((import|stored|telemetry|terminal)\/)?[\w-]+\.ts$/.test(id) &&
    isOfStart(id) &&
    !/start-lanes|import-record/.test(id) // an import loads them before the rest
  );
}

/** Tells whether a module is needed to start lanes, which an import does before it loads anything else. */
function isOfLanes(id: string): boolean {
  return /packages\/castore\/src\/(worker\/lanes?|model\/errors)\.ts$/.test(id);
}

/** Tells whether a module is needed to load all others. */
function isOfLoader(id: string): boolean {
  return /packages\/cli\/src\/(cache-file|code-cache|user-folders)\.ts$/.test(id);
}

/** Tells whether a module of those that every command loads is loaded then. */
function isOfStart(id: string): boolean {
  return !isOfLoader(id) && !/packages\/cli\/src\/main\.ts$/.test(id);
}

const source = (path: string, base: URL) => fileURLToPath(new URL(path, base));

/**
 * The build for `require` of a package: that for `import` of it calls `createRequire`, and what it requires at run time
 * would stay outside the bundle.
 */
const required = createRequire(
  createRequire(import.meta.url).resolve("@opentelemetry/exporter-trace-otlp-grpc"),
).resolve("@opentelemetry/otlp-grpc-exporter-base");

/**
 * Gives commander an empty module for `node:child_process`, which takes a twentieth of the time of `--help` to load: it would
 * start subcommands that are executables with it, and there are none.
 */
const withoutChildProcess: Plugin = {
  name: "without-child-process",
  resolveId: (id, importer) =>
    id === "node:child_process" && importer?.includes("/node_modules/commander/")
      ? "\0no-child-process"
      : undefined,
  load: (id) => (id === "\0no-child-process" ? "export default {};" : undefined),
};

/** What both bundles have in common. */
const common: InputOptions = {
  platform: "node",
  resolve: { alias: { "@opentelemetry/otlp-grpc-exporter-base": required } },
  preserveEntrySignatures: "allow-extension",
  checks: { ineffectiveDynamicImport: false }, // what castore loads on demand is in one file with the rest of it
  onLog(level, log, defaultHandler) {
    if (log.code === "UNRESOLVED_IMPORT") throw new Error(log.message); // it would be left to whoever runs the command
    defaultHandler(level, log);
  },
  external: Object.keys({
    ...manifest.dependencies,
    ...manifest.optionalDependencies,
    ...manifest.peerDependencies,
  }).map((name) => new RegExp(`^${name}(/|$)`)),
};

/** Writes a bundle, the modules of each of some groups in one file: one is loaded much faster than many. */
async function write(bundle: RolldownBuild, groups: CodeSplittingGroup[]) {
  const { output } = await bundle.write({
    dir: dist,
    format: "cjs",
    // All in one folder: a module names a lane's module as its neighbour.
    entryFileNames: "[name].cjs",
    chunkFileNames: "[name]-[hash].cjs",
    dynamicImportInCjs: false, // a script that is not loaded by Node.js itself has none
    comments: { annotation: false, jsdoc: false },
    codeSplitting: { groups, includeDependenciesRecursively: false },
  });
  return output;
}

await using program = await rolldown({
  ...common,
  plugins: [withoutChildProcess],
  input: { main: source("src/main.ts", here), program: source("src/program.ts", here) },
});
const output = await write(program, [
  { name: "loader", test: isOfLoader, priority: 3 },
  { name: "lanes", test: isOfLanes, priority: 2 },
  { name: "core", test: isCore, priority: 1 },
  { name: "grpc", test: isGrpcClient, priority: 1 },
  { name: "start", test: isOfStart, tags: ["$initial"] },
  { name: "commands", test: isOfCommands, minShareCount: 4 },
  { name: "protobuf", test: /\/@bufbuild\/protobuf\//, minShareCount: 4 },
]);

await bundleLanes(dist, "cjs", common);

// So that the thread starts with what it needs alone.
await using device = await rolldown({
  ...common,
  input: { "device-thread": source("src/device-thread.ts", new URL("../fs/", here)) },
});
await device.write({ dir: dist, format: "cjs", entryFileNames: "[name].cjs" });

// A module that core needs and that needs core would run before core has.
const chunks = new Map(
  output.flatMap((chunk) => ("imports" in chunk ? [[chunk.fileName, chunk]] : [])),
);
for (const { fileName, imports } of chunks.values()) {
  const wrong = imports.filter((name) => chunks.get(name)?.imports.includes(fileName));
  if (wrong.length > 0) throw new Error(`Cannot bundle: ${fileName} and ${wrong} need each other`);
}

// Every command, and --help, takes longer to start with each file more.
const start = [...chunks.values()].find(({ name }) => name === "program");
const others = start?.imports.filter(
  (name) => chunks.has(name) && !/^(loader|rolldown-runtime)-/.test(name),
);
if (others?.length !== 0) throw new Error(`Cannot bundle: the start of commands loads ${others}`);
