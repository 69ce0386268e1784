import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, vi } from "vitest";
import { describeWithTools, type RunningServer, startServer } from "../src/index.ts";

/**
 * Describes tests that need a server of S3, which they get.
 *
 * @param tests is given what makes the address of an empty bucket
 */
export function describeWithS3(title: string, tests: (bucket: () => string) => void): void {
  describeWithTools(title, ["run-s3"], (launcher) => {
    let server: RunningServer;
    let buckets = 0;

    beforeAll(async () => {
      server = await startServer(launcher);
      vi.stubEnv("AWS_ACCESS_KEY_ID", "test");
      vi.stubEnv("AWS_SECRET_ACCESS_KEY", "testtest");
    });

    afterAll(async () => {
      vi.unstubAllEnvs();
      await server[Symbol.asyncDispose]();
    });

    tests(() => {
      const bucket = `bucket-${++buckets}`;
      mkdirSync(join(server.data, bucket));
      const endpoint = `http://127.0.0.1:${server.port}`;
      const query = new URLSearchParams({
        endpoint,
        region: "us-east-1",
        force_path_style: "true",
      });
      return `s3://${bucket}/some/prefix?${query}`;
    });
  });
}
