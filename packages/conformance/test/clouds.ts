import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { BlobServiceClient } from "@azure/storage-blob";
import { Storage } from "@google-cloud/storage";
import { afterAll, beforeAll, vi } from "vitest";
import { describeWithTools, type RunningServer, startServer } from "../src/index.ts";

/**
 * Describes tests that need a server of a cloud, which they get.
 *
 * @param tests receives a function that creates an empty bucket and returns the address of a folder in it
 */
type DescribeWithCloud = (title: string, tests: (newBucket: () => Promise<string>) => void) => void;

/** An emulator: the launcher of its server, and a function that creates a bucket. */
interface Cloud {
  readonly launcher: string;
  readonly inMemory?: boolean;
  /** Environment with credentials and endpoints. */
  readonly env?: (port: number) => Readonly<Record<string, string>>;
  /** @returns the address of a folder in the new bucket */
  readonly makeBucket: (name: string, server: RunningServer) => Promise<string>;
}

// The account and the key that every installation of the emulator has.
const AZURE_ACCOUNT = "devstoreaccount1";
const AZURE_KEY =
  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const SERVERS: Readonly<Record<string, Cloud>> = {
  S3: {
    launcher: "run-s3",
    env: () => ({ AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "testtest" }),
    async makeBucket(name, { port, data }) {
      mkdirSync(join(data, name));
      const endpoint = `http://127.0.0.1:${port}`;
      const options = { endpoint, region: "us-east-1", force_path_style: "true" };
      return `s3://${name}/some/prefix?${new URLSearchParams(options)}`;
    },
  },
  "Google Cloud": {
    launcher: "run-gcs",
    inMemory: true,
    async makeBucket(name, { port }) {
      const endpoint = `http://127.0.0.1:${port}`;
      await new Storage({ apiEndpoint: endpoint, projectId: "test" }).createBucket(name);
      const options = { endpoint, project_id: "test" };
      return `gs://${name}/some/prefix?${new URLSearchParams(options)}`;
    },
  },
  Azure: {
    launcher: "run-azure",
    inMemory: true,
    env: (port) => ({
      AZURE_STORAGE_CONNECTION_STRING: [
        "DefaultEndpointsProtocol=http",
        `AccountName=${AZURE_ACCOUNT}`,
        `AccountKey=${AZURE_KEY}`,
        `BlobEndpoint=http://127.0.0.1:${port}/${AZURE_ACCOUNT};`,
      ].join(";"),
    }),
    async makeBucket(name) {
      const connection = process.env.AZURE_STORAGE_CONNECTION_STRING!;
      await BlobServiceClient.fromConnectionString(connection).createContainer(name);
      return `az://${name}/some/prefix`;
    },
  },
};

/** By the name of the cloud. Without its server, the tests are skipped. */
export const CLOUDS: Readonly<Record<string, DescribeWithCloud>> = Object.fromEntries(
  Object.entries(SERVERS).map(([name, cloud]) => [name, describeWith(cloud)]),
);

function describeWith({ launcher, inMemory, env, makeBucket }: Cloud): DescribeWithCloud {
  return (title, tests) =>
    describeWithTools(title, [launcher], (path) => {
      let server: RunningServer;
      let buckets = 0;

      beforeAll(async () => {
        server = await startServer(path, { inMemory: inMemory ?? false });
        for (const [key, value] of Object.entries(env?.(server.port) ?? {})) vi.stubEnv(key, value);
      });

      afterAll(async () => {
        vi.unstubAllEnvs();
        await server[Symbol.asyncDispose]();
      });

      tests(() => makeBucket(`bucket-${++buckets}`, server));
    });
}
