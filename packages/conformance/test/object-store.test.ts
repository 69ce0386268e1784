import { BlobServiceClient } from "@azure/storage-blob";
import { Storage } from "@google-cloud/storage";
import { MemoryObjectStore, openObjectStore } from "@tvix/castore";
import { afterAll, beforeAll, vi } from "vitest";
import {
  describeWithTools,
  objectStoreSuite,
  type RunningServer,
  startServer,
} from "../src/index.ts";
import { disposingOf } from "./grpc-over.ts";
import { describeWithS3 } from "./s3.ts";
import { temporaryFolder } from "./temporary-folder.ts";

objectStoreSuite("MemoryObjectStore", {
  async createPair() {
    const store = new MemoryObjectStore();
    return [store, store];
  },
});

objectStoreSuite("FileObjectStore", {
  async createPair() {
    const folder = temporaryFolder();
    const address = `file://${folder.path}/objects`;
    const first = await openObjectStore(address);
    return [first, disposingOf(await openObjectStore(address), folder)];
  },
});

describeWithS3("S3ObjectStore over a server", (bucket) => {
  objectStoreSuite("S3ObjectStore", {
    async createPair() {
      const address = bucket();
      return [await openObjectStore(address), await openObjectStore(address)];
    },
  });
});

describeWithTools("GcsObjectStore over a server", ["run-gcs"], (launcher) => {
  let server: RunningServer;
  let buckets = 0;

  beforeAll(async () => {
    server = await startServer(launcher, { inMemory: true });
  });

  afterAll(() => server[Symbol.asyncDispose]());

  objectStoreSuite("GcsObjectStore", {
    async createPair() {
      const endpoint = `http://127.0.0.1:${server.port}`;
      const bucket = `bucket-${++buckets}`;
      const storage = new Storage({ apiEndpoint: endpoint, projectId: "test" });
      await storage.createBucket(bucket);
      const address = `gs://${bucket}/some/prefix`;
      const options = { endpoint, project_id: "test" };
      return [await openObjectStore(address, options), await openObjectStore(address, options)];
    },
  });
});

describeWithTools("AzureObjectStore over a server", ["run-azure"], (launcher) => {
  let server: RunningServer;
  let containers = 0;

  beforeAll(async () => {
    server = await startServer(launcher);
    const endpoint = `http://127.0.0.1:${server.port}/devstoreaccount1`;
    // The account and the key that every installation of the emulator has.
    const key =
      "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    vi.stubEnv(
      "AZURE_STORAGE_CONNECTION_STRING",
      `DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=${key};BlobEndpoint=${endpoint};`,
    );
  });

  afterAll(async () => {
    vi.unstubAllEnvs();
    await server[Symbol.asyncDispose]();
  });

  objectStoreSuite("AzureObjectStore", {
    async createPair() {
      const container = `container-${++containers}`;
      const connection = process.env.AZURE_STORAGE_CONNECTION_STRING!;
      await BlobServiceClient.fromConnectionString(connection).createContainer(container);
      const address = `az://${container}/some/prefix`;
      return [await openObjectStore(address), await openObjectStore(address)];
    },
  });
});
