import { MemoryObjectStore, openObjectStore } from "@tvix/castore";
import { objectStoreSuite } from "../src/index.ts";
import { CLOUDS } from "./clouds.ts";
import { disposingOf } from "./grpc-over.ts";
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

objectStoreSuite("SqliteObjectStore", {
  async createPair() {
    const folder = temporaryFolder();
    const address = `sqlite://${folder.path}/objects`;
    const first = await openObjectStore(address);
    return [first, disposingOf(await openObjectStore(address), folder)];
  },
});

for (const [cloud, describeWithCloud] of Object.entries(CLOUDS)) {
  describeWithCloud(`an object store of ${cloud}`, (newBucket) => {
    objectStoreSuite(`The object store of ${cloud}`, {
      async createPair() {
        const address = await newBucket();
        return [await openObjectStore(address), await openObjectStore(address)];
      },
      async createMissing() {
        const bucket = "no-such-bucket";
        const address = (await newBucket()).replace(/bucket-\d+/, bucket);
        return [await openObjectStore(address), bucket];
      },
      deletesVersions: cloud !== "Google Cloud", // whose emulator heeds no conditions of deletes
    });
  });
}
