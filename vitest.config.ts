import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

// biome-ignore lint/style/noDefaultExport: the form that vitest reads
export default defineConfig({
  test: {
    // From the root of the repository, and from the folder of a package.
    include: ["{packages/*,bench}/{src,test}/**/*.test.ts", "{src,test}/**/*.test.ts"],
    reporters: ["default", ["json", { outputFile: ".test-results.json" }]],
    silent: "passed-only",
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Files share the modules that are loaded: most of them load the same, and some of that is large.
    isolate: false,
    maxWorkers: availableParallelism(),
    // Threads and processes that tests start need not compile everything again.
    env: {
      NODE_COMPILE_CACHE: fileURLToPath(new URL("node_modules/.cache/node", import.meta.url)),
    },
  },
});
