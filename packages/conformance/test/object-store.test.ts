import { MemoryObjectStore, openObjectStore } from "@tvix/castore";
import { objectStoreSuite } from "../src/index.ts";
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
