import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { ListMultipartUploadsCommand, S3Client } from "@aws-sdk/client-s3";
import { BlobServiceClient } from "@azure/storage-blob";
import { Storage } from "@google-cloud/storage";
import { collectBytes, type ObjectStore, openObjectStore } from "@tvix/castore";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { describeWithTools, type RunningServer, seededBytes, startServer } from "../src/index.ts";

/** Secrets that no message may contain. */
const SECRETS = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "testtest" };
const AZURE_ACCOUNT = "devstoreaccount1";
// The key that every installation of the emulator has.
const AZURE_KEY =
  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const LARGE = seededBytes("longer than a part", 20_000_000);

/** How a cloud is started, and reached through a port that leads to it. */
interface Cloud {
  readonly launcher: string;
  readonly inMemory?: boolean;
  makeBucket(name: string, server: RunningServer): unknown;
  open(bucket: string, port: number, options: Record<string, string>): Promise<ObjectStore>;
}

const CLOUDS: Readonly<Record<string, Cloud>> = {
  S3: {
    launcher: "run-s3",
    makeBucket: (name, { data }) => mkdirSync(join(data, name)),
    open(bucket, port, options) {
      vi.stubEnv("AWS_ACCESS_KEY_ID", SECRETS.AWS_ACCESS_KEY_ID);
      vi.stubEnv("AWS_SECRET_ACCESS_KEY", SECRETS.AWS_SECRET_ACCESS_KEY);
      const endpoint = `http://127.0.0.1:${port}`;
      const all = { endpoint, region: "us-east-1", force_path_style: "true", ...options };
      return openObjectStore(`s3://${bucket}/some/prefix`, all);
    },
  },
  "Google Cloud": {
    launcher: "run-gcs",
    inMemory: true,
    makeBucket: (name, { port }) =>
      new Storage({ apiEndpoint: `http://127.0.0.1:${port}`, projectId: "test" }).createBucket(
        name,
      ),
    open: (bucket, port, options) =>
      openObjectStore(`gs://${bucket}/some/prefix`, {
        endpoint: `http://127.0.0.1:${port}`,
        project_id: "test",
        ...options,
      }),
  },
  Azure: {
    launcher: "run-azure",
    makeBucket: (name, { port }) =>
      BlobServiceClient.fromConnectionString(azureConnection(port)).createContainer(name),
    open(bucket, port, options) {
      vi.stubEnv("AZURE_STORAGE_CONNECTION_STRING", azureConnection(port));
      return openObjectStore(`az://${bucket}/some/prefix`, options);
    },
  },
};

function azureConnection(port: number): string {
  const endpoint = `http://127.0.0.1:${port}/${AZURE_ACCOUNT}`;
  return `DefaultEndpointsProtocol=http;AccountName=${AZURE_ACCOUNT};AccountKey=${AZURE_KEY};BlobEndpoint=${endpoint};`;
}

async function get(store: ObjectStore, key: string, signal?: AbortSignal): Promise<Buffer> {
  return Buffer.from(await collectBytes((await store.get(key, { ...(signal && { signal }) }))!));
}

async function keysOf(store: ObjectStore, signal?: AbortSignal): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list("", { ...(signal && { signal }) })) keys.push(key);
  return keys;
}

async function upload(store: ObjectStore, data: Uint8Array, signal?: AbortSignal): Promise<void> {
  await using upload = store.openUpload("uploaded", { ...(signal && { signal }) });
  for (let at = 0; at < data.length; at += 1_000_000) {
    await upload.write(data.subarray(at, at + 1_000_000));
  }
  await upload.close();
}

type Call = (store: ObjectStore, signal?: AbortSignal) => Promise<unknown>;

const CALLS: Readonly<Record<string, Call>> = {
  get: (store, signal) => get(store, "k", signal),
  head: (store, signal) => store.head("k", { ...(signal && { signal }) }),
  put: (store, signal) => store.put("new", Buffer.from("x"), { ...(signal && { signal }) }),
  "a short upload": (store, signal) => upload(store, Buffer.from("x"), signal),
  "a long upload": (store, signal) => upload(store, LARGE, signal),
  list: (store, signal) => keysOf(store, signal),
  delete: (store, signal) => store.delete("absent", { ...(signal && { signal }) }),
};

/** A link of toxiproxy. */
class Link {
  readonly port: number;
  readonly #url: string;

  private constructor(port: number, url: string) {
    this.port = port;
    this.#url = url;
  }

  static async open(toxiproxy: RunningServer, name: string, to: RunningServer): Promise<Link> {
    const url = `http://127.0.0.1:${toxiproxy.port}/proxies`;
    const settings = { name, listen: "127.0.0.1:0", upstream: `127.0.0.1:${to.port}` };
    const { listen } = (await post(url, settings)) as { listen: string };
    return new Link(Number(listen.split(":").pop()), `${url}/${name}`);
  }

  /** Refuses all connections from now on. */
  async cut(): Promise<void> {
    await post(this.#url, { enabled: false });
  }

  /** Connections are made, and stay open, but no byte comes back. */
  async stall(): Promise<void> {
    const attributes = { timeout: 0 };
    await post(`${this.#url}/toxics`, { type: "timeout", stream: "downstream", attributes });
  }
}

async function post(url: string, body: object): Promise<unknown> {
  const answer = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`toxiproxy answered ${answer.status} ${await answer.text()}`);
  return await answer.json();
}

describe.each(Object.entries(CLOUDS))("%s", (_, cloud) => {
  describeWithTools("over a link", [cloud.launcher, "run-toxiproxy"], (launcher, proxyLauncher) => {
    let server: RunningServer;
    let toxiproxy: RunningServer;
    let links = 0;

    beforeAll(async () => {
      server = await startServer(launcher, { inMemory: cloud.inMemory ?? false });
      toxiproxy = await startServer(proxyLauncher);
    });

    afterAll(async () => {
      vi.unstubAllEnvs();
      await toxiproxy[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    });

    /** A new bucket with an object in it, and a link of its own to it. */
    async function linkToBucket() {
      const bucket = `bucket-${++links}`;
      await cloud.makeBucket(bucket, server);
      const link = await Link.open(toxiproxy, bucket, server);
      const open = (options: Record<string, string> = {}) => cloud.open(bucket, link.port, options);
      const openDirectly = () => cloud.open(bucket, server.port, {});
      await using store = await openDirectly();
      await store.put("k", Buffer.from("contents"));
      return { link, open, openDirectly };
    }

    it("that works does everything", async () => {
      const { open } = await linkToBucket();
      await using store = await open();
      for (const call of Object.values(CALLS)) await call(store);
      expect((await get(store, "k")).toString()).toBe("contents");
      expect(await keysOf(store)).toEqual(["k", "new", "uploaded"]);
    });

    it("that stalls between the parts of an object is told", async () => {
      const { link, open, openDirectly } = await linkToBucket();
      await using direct = await openDirectly();
      await direct.put("large", LARGE);
      await using store = await open({ timeout_ms: "2000" });
      const pieces = (await store.get("large"))![Symbol.asyncIterator]();
      expect((await pieces.next()).value.length).toBeGreaterThan(0);
      await link.stall();
      const rest = async () => {
        while (!(await pieces.next()).done);
      };
      await expectUnavailable(rest(), store);
    });

    // Most of the time they wait, which they can together.
    it.concurrent.each(Object.entries(CALLS))("that is cut is told by %s", async (_, call) => {
      const { link, open } = await linkToBucket();
      await using store = await open();
      await link.cut();
      await expectUnavailable(call(store), store);
    });

    it.concurrent.each(Object.entries(CALLS))("that stalls is told by %s", async (_, call) => {
      const { link, open } = await linkToBucket();
      await using store = await open({ timeout_ms: "200" });
      await link.stall();
      await expectUnavailable(call(store), store);
    });

    it.concurrent.each(Object.entries(CALLS))(
      "that stalls does not keep %s that is cancelled",
      async (_, call) => {
        const { link, open } = await linkToBucket();
        await using store = await open({ timeout_ms: "1000" });
        await link.stall();
        const controller = new AbortController();
        const reason = new Error("enough");
        const calling = call(store, controller.signal);
        setTimeout(() => controller.abort(reason), 50);
        await expect(calling).rejects.toBe(reason);
      },
    );
  });
});

async function expectUnavailable(call: Promise<unknown>, store: ObjectStore): Promise<void> {
  const error = await call.then(
    () => expect.unreachable("it succeeded"),
    (error) => error,
  );
  expect(error).toMatchObject({ name: "CastoreError", code: "unavailable" });
  for (const secret of [SECRETS.AWS_SECRET_ACCESS_KEY, AZURE_KEY, "Signature"]) {
    expect(error.message).not.toContain(secret);
    expect(store.name).not.toContain(secret);
  }
}

/** The outcome of a request: the status of an error, a number of bytes before the connection breaks, or success. */
type Fate = { readonly status: number } | { readonly bytes: number } | undefined;

/** A server in front of another, which hands on some requests as they are, and not others. */
async function startFront(port: number, fateOf: (method: string, url: string) => Fate) {
  const server = createServer((incoming: IncomingMessage, outgoing: ServerResponse) => {
    const { method = "", url = "", headers } = incoming;
    const fate = fateOf(method, url);
    if (fate && "status" in fate) {
      incoming.resume().once("end", () => outgoing.writeHead(fate.status).end());
      return;
    }
    const onward = request({ host: "127.0.0.1", port, method, path: url, headers }, (answer) => {
      if (outgoing.destroyed) return answer.destroy(); // whoever asked has gone
      outgoing.writeHead(answer.statusCode ?? 0, answer.headers);
      if (fate === undefined) return pipeline(answer, outgoing, () => undefined);
      answer.once("data", (data: Buffer) => {
        outgoing.write(data.subarray(0, fate.bytes), () => outgoing.destroy());
        answer.destroy();
      });
    });
    pipeline(incoming, onward, () => undefined); // who was cut off may have gone
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.dispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}

describe.each(Object.entries(CLOUDS))("%s", (_, cloud) => {
  describeWithTools("behind a server that fails", [cloud.launcher], (launcher) => {
    let server: RunningServer;
    let front: Awaited<ReturnType<typeof startFront>>;
    let fates: Fate[];
    let requests: number;
    let buckets = 0;

    async function openThrough(): Promise<ObjectStore> {
      const bucket = `bucket-${++buckets}`;
      await cloud.makeBucket(bucket, server);
      await using direct = await cloud.open(bucket, server.port, {});
      await direct.put("k", Buffer.from("contents"));
      return await cloud.open(bucket, front.port, {});
    }

    beforeAll(async () => {
      server = await startServer(launcher, { inMemory: cloud.inMemory ?? false });
      front = await startFront(server.port, () => {
        requests += 1;
        return fates.shift();
      });
    });

    beforeEach(() => {
      fates = [];
      requests = 0;
    });

    afterAll(async () => {
      vi.unstubAllEnvs();
      front[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
    });

    it("tries again what is answered by 503", async () => {
      await using store = await openThrough();
      await store.head("absent"); // which may look once whether there is a bucket
      requests = 0;
      for (const call of ["get", "head", "put", "list", "delete"]) {
        fates = [{ status: 503 }];
        await CALLS[call]!(store);
      }
      expect(requests).toBe(10);
    });

    it("does not try again for ever", async () => {
      await using store = await openThrough();
      fates = Array.from({ length: 100 }, () => ({ status: 503 }));
      await expectUnavailable(get(store, "k"), store);
      expect(requests).toBe(4);
    });

    it("makes a request four times at most, in whatever ways it goes wrong", async () => {
      await using store = await openThrough();
      const ways: readonly Fate[] = [{ status: 503 }, { bytes: 3 }, { status: 500 }];
      fates = Array.from({ length: 100 }, (_, i) => ways[i % ways.length]);
      await expectUnavailable(get(store, "k"), store);
      expect(requests).toBe(4);
      requests = 0;
      fates = Array.from({ length: 100 }, () => ({ status: 503 }));
      await expectUnavailable(CALLS.put!(store), store);
      expect(requests).toBe(4);
    });

    it("asks again for an answer that breaks off", async () => {
      await using store = await openThrough();
      fates = [{ bytes: 3 }, { bytes: 5 }];
      expect((await get(store, "k")).toString()).toBe("contents");
      expect(requests).toBe(3);
    });

    it("does not ask for ever for an answer that breaks off", async () => {
      await using store = await openThrough();
      fates = Array.from({ length: 100 }, () => ({ bytes: 3 }));
      await expectUnavailable(get(store, "k"), store);
      expect(requests).toBe(4);
    });

    it("says that access is refused, and does not repeat the request", async () => {
      await using store = await openThrough();
      fates = Array.from({ length: 100 }, () => ({ status: 403 }));
      const error = { name: "CastoreError", code: "permission_denied" };
      await expect(get(store, "k")).rejects.toMatchObject(error);
      expect(requests).toBeLessThan(3); // it may ask once more what is wrong
    });
  });
});

describeWithTools("S3", ["run-s3"], (launcher) => {
  let server: RunningServer;

  beforeAll(async () => {
    server = await startServer(launcher);
  });

  afterEach(() => vi.unstubAllEnvs());

  afterAll(() => server[Symbol.asyncDispose]());

  async function partsIn(bucket: string): Promise<string[]> {
    const client = new S3Client({
      endpoint: `http://127.0.0.1:${server.port}`,
      region: "us-east-1",
      forcePathStyle: true,
    });
    const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }));
    client.destroy();
    return Uploads.map(({ Key = "" }) => Key);
  }

  it.each(["dropped", "cancelled", "refused"])(
    "keeps no parts of an upload that is %s",
    async (how) => {
      const bucket = `parts-${how}`;
      mkdirSync(join(server.data, bucket));
      const seen: string[][] = [];
      using front = await startFront(server.port, (method, url) => {
        const isComplete = method === "POST" && url.includes("uploadId=");
        return how === "refused" && isComplete ? { status: 403 } : undefined;
      });
      await using store = await CLOUDS.S3!.open(bucket, front.port, {});
      const controller = new AbortController();
      const reason = new Error("enough");
      {
        await using upload = store.openUpload("k", { signal: controller.signal });
        await upload.write(LARGE);
        await upload.write(LARGE);
        seen.push(await partsIn(bucket));
        if (how === "cancelled") {
          controller.abort(reason);
          await expect(upload.close()).rejects.toBe(reason);
        }
        if (how === "refused") {
          await expect(upload.close()).rejects.toMatchObject({ code: "permission_denied" });
        }
      }
      seen.push(await partsIn(bucket));
      expect(seen).toEqual([["some/prefix/k"], []]);
      expect(await store.head("k")).toBeUndefined();
    },
  );

  it("refuses wrong credentials, without showing them", async () => {
    mkdirSync(join(server.data, "closed"));
    await using store = await CLOUDS.S3!.open("closed", server.port, {});
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    const error = await get(store, "k").catch((error) => error);
    expect(error).toMatchObject({ name: "CastoreError", code: "permission_denied" });
    expect(error.message).not.toContain("not-the-secret");
  });

  it("does not take an object for stored that is not", async () => {
    mkdirSync(join(server.data, "conflict"));
    using front = await startFront(server.port, (method) =>
      method === "PUT" ? { status: 409 } : undefined,
    );
    await using store = await CLOUDS.S3!.open("conflict", front.port, {});
    const conflict = { name: "CastoreError", code: "aborted" };
    await expect(store.put("k", Buffer.from("x"))).rejects.toMatchObject(conflict);
    expect(await store.head("k")).toBeUndefined();
  });
});
