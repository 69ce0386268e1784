import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

// biome-ignore lint/style/noDefaultExport: the form that vitest reads
export default defineConfig({
  test: {
    include: ["{packages/*,bench}/{src,test}/**/*.test.ts", "{src,test}/**/*.test.ts"],
    reporters: ["default", ["json", { outputFile: ".test-results.json" }]],
    silent: "passed-only",
    testTimeout: 60_000,
    hookTimeout: 60_000,
    isolate: false,
    maxWorkers: availableParallelism(),
  },
});
