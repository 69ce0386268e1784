import { statfsSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { defaultExclude, defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** From the root of the repository, and from the folder of a package. */
const filesNamed = (ending: string) => [
  `{packages/*,bench}/{src,test}/**/*${ending}`,
  `{src,test}/**/*${ending}`,
];
const ALL = filesNamed(".test.ts");
/** Tests that change their process for good, such as by a global tracer provider. */
const ALONE = filesNamed(".alone.test.ts");

/** Whole programs, and suites over many implementations: what takes longest. */
const SLOW = /\/packages\/(cli|conformance)\/test\//;

const COMPARE_BYTES = fileURLToPath(new URL("scripts/compare-bytes.ts", import.meta.url));

/**
 * The folder for what tests write, in memory where there is enough of it: they open thousands of stores, and to wait for a
 * disk takes a fifth of their time. Tests of full disks and of power loss make file systems of their own.
 */
function temporaryFolder(): string {
  const memory = "/dev/shm";
  try {
    const { bavail, bsize } = statfsSync(memory);
    if (process.env.TMPDIR === undefined && bavail * bsize >= 8 * 1024 ** 3) return memory;
  } catch {} // there is none
  return tmpdir();
}

/** Starts what takes longest first, as both workers are busy to the end then. */
class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId, project }: TestSpecification) =>
      Number(!project.config.isolate) * 2 + Number(!SLOW.test(moduleId));
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

// biome-ignore lint/style/noDefaultExport: the form that vitest reads
export default defineConfig({
  test: {
    reporters: ["default", ["json", { outputFile: ".test-results.json" }]],
    silent: "passed-only",
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Without, V8 collects all garbage for every few buffers that come and go: a tenth of the time.
    execArgv: ["--external-memory-accounted-in-global-limit"],
    maxWorkers: availableParallelism() + 1, // a third of what tests do is to wait
    sequence: { sequencer: SlowFirst },
    // Threads and processes that tests start need not compile everything again.
    env: {
      TMPDIR: temporaryFolder(),
      NODE_COMPILE_CACHE: fileURLToPath(new URL("node_modules/.cache/node", import.meta.url)),
    },
    projects: [
      { extends: true, test: { name: "alone", include: ALONE, setupFiles: COMPARE_BYTES } },
      {
        extends: true,
        test: {
          name: "shared",
          include: ALL,
          exclude: [...defaultExclude, ...ALONE],
          // Files share the modules that are loaded: most of them load the same, and some of that is large.
          isolate: false,
          globalSetup: fileURLToPath(new URL("scripts/build-command.ts", import.meta.url)),
          setupFiles: [
            fileURLToPath(new URL("scripts/expect-unchanged-process.ts", import.meta.url)),
            COMPARE_BYTES,
          ],
        },
      },
    ],
  },
});
