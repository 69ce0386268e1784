import { once } from "node:events";
import { mkdirSync } from "node:fs";
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  request,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { type CastoreError, collectBytes, openObjectStore } from "@tvix/castore";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { describeWithTools, type RunningServer, startServer } from "../src/index.ts";
import { CLOUDS } from "./clouds.ts";

async function listen(listener: RequestListener, onConnect?: (...args: ConnectEvent) => void) {
  const server = createServer(listener);
  if (onConnect) server.on("connect", onConnect);
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

type ConnectEvent = [IncomingMessage, import("node:stream").Duplex, Buffer];

/** Returns the error of a call of a store on S3. */
async function refusal(
  options: Record<string, string>,
  call: "head" | "get" | "put",
): Promise<CastoreError> {
  await using store = await openObjectStore("s3://bucket/some/prefix", {
    force_path_style: "true",
    ...options,
  });
  const calling = call === "put" ? store.put("k", Buffer.from("x")) : store[call]("k");
  const error = await calling.then(
    () => expect.unreachable("it succeeded"),
    (error) => error,
  );
  expect(error.message).toContain("s3://bucket/some/prefix");
  expect(error.message).not.toContain("UnknownError");
  expect(error.message).not.toMatch(/secret-of|testtest/);
  return error;
}

beforeEach(() => {
  vi.stubEnv("AWS_ACCESS_KEY_ID", "test");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "testtest");
  vi.stubEnv("AWS_REGION", undefined);
  vi.stubEnv("AWS_DEFAULT_REGION", undefined);
  vi.stubEnv("AWS_CONFIG_FILE", "/dev/null");
});

afterEach(() => stubProxies({}));

afterAll(() => vi.unstubAllEnvs());

const CALLS = ["head", "get", "put"] as const;

describe.each(CALLS)("what %s says of a bucket of S3", (call) => {
  it("that needs a region", async () => {
    const error = await refusal({ endpoint: "http://127.0.0.1:1" }, call);
    expect(error).toMatchObject({ code: "invalid_argument" });
    expect(error.message).toContain('option "region", AWS_REGION');
  });

  it("whose credentials may do nothing, as S3 tells it", async () => {
    const body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    using server = await listen(({ method }, response) => {
      response.writeHead(403, { "content-type": "application/xml" });
      response.end(method === "HEAD" ? undefined : body);
    });
    const endpoint = `http://127.0.0.1:${server.port}`;
    const error = await refusal({ endpoint, region: "us-east-1" }, call);
    expect(error).toMatchObject({ code: "permission_denied" });
    expect(error.message).toContain("s3:ListBucket");
    expect(error.message).toContain("AccessDenied");
  });

  it("whose credentials may do all but list it, where a key is missing", async () => {
    const body = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    using server = await listen(({ method }, response) => {
      if (method === "PUT") return response.writeHead(200, { etag: '"1"' }).end();
      response.writeHead(403, { "content-type": "application/xml" });
      return response.end(method === "HEAD" ? undefined : body);
    });
    if (call === "put") return;
    const endpoint = `http://127.0.0.1:${server.port}`;
    const error = await refusal({ endpoint, region: "us-east-1" }, call);
    expect(error).toMatchObject({ code: "permission_denied" });
    expect(error.message).toContain("s3:ListBucket for the bucket, without which S3 answers 403");
  });

  it("at an endpoint that is a web site", async () => {
    using server = await listen((_, response) => {
      response.writeHead(404, { "content-type": "text/html" }).end("<html><p>not here</html>");
    });
    const endpoint = `http://127.0.0.1:${server.port}`;
    const error = await refusal({ endpoint, region: "us-east-1" }, call);
    expect(error).toMatchObject({ code: "invalid_argument" });
    expect(error.message).toContain('is option "endpoint" right?');
  });

  it("at an endpoint where nobody listens", async () => {
    const { port } = await listen(() => undefined).then((server) => {
      server[Symbol.dispose]();
      return server;
    });
    const options = { endpoint: `http://localhost:${port}`, region: "us-east-1" };
    const error = await refusal(options, call);
    expect(error).toMatchObject({ code: "unavailable" });
    expect(error.message).toContain("cannot reach the service");
    expect(error.message).toContain("ECONNREFUSED");
  });
});

describeWithTools("A server of S3", ["run-s3"], (launcher) => {
  let server: RunningServer;
  let endpoint: string;

  beforeAll(async () => {
    server = await startServer(launcher);
    mkdirSync(join(server.data, "bucket"));
    endpoint = `http://127.0.0.1:${server.port}`;
  });

  afterAll(() => server[Symbol.asyncDispose]());

  it.each(CALLS)("that knows another secret is told by %s", async (call) => {
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", "secret-of-somebody-else");
    const error = await refusal({ endpoint, region: "us-east-1" }, call);
    expect(error).toMatchObject({ code: "permission_denied" });
    expect(error.message).toContain("the secret access key is not the one");
  });

  it.each(CALLS)("in another region is told by %s", async (call) => {
    const error = await refusal({ endpoint, region: "eu-west-1" }, call);
    expect(error).toMatchObject({ code: "invalid_argument" });
    expect(error.message).toContain('another region than option "region" says');
    expect(error.message).toContain("us-east-1");
  });

  it("that ignores the condition of a delete is found out, and nothing is deleted", async () => {
    const deleted: string[] = [];
    using front = await listen((incoming, outgoing) => {
      const { method, url, headers } = incoming;
      if (method === "DELETE") {
        if (headers["if-match"] !== undefined) deleted.push(url!.split("?")[0]!);
        return outgoing.writeHead(204).end(); // whatever the condition says
      }
      const port = server.port;
      const onward = request({ host: "127.0.0.1", port, method, path: url, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 0, answer.headers);
        pipeline(answer, outgoing, () => undefined);
      });
      return pipeline(incoming, onward, () => undefined);
    });
    await using store = await openObjectStore("s3://bucket/some/prefix", {
      endpoint: `http://127.0.0.1:${front.port}`,
      region: "us-east-1",
      force_path_style: "true",
    });
    await store.put("k", Buffer.from("damaged"));
    const { version } = (await store.head("k"))!;
    for (let i = 0; i < 2; i++) {
      const deleting = store.delete("k", { version: version! });
      await expect(deleting).rejects.toMatchObject({ code: "unimplemented" });
    }
    expect(deleted).toHaveLength(1); // the probe, of another key
    expect(deleted[0]).toMatch(/^\/bucket\/some\/prefix\/k\../);
    expect(await store.head("k")).toBeDefined();
  });
});

/** A transparent proxy that counts bytes. */
async function startProxy() {
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const server = await listen(
    (incoming: IncomingMessage, outgoing: ServerResponse) => {
      const { method, url, headers } = incoming;
      asked.push(url!);
      const { host, pathname, search } = new URL(url!);
      const [hostname, port] = host.split(":");
      const onward = request(
        { host: hostname, port, method, path: pathname + search, headers },
        (answer) => {
          outgoing.writeHead(answer.statusCode ?? 0, answer.headers);
          pipeline(answer, outgoing, () => undefined);
        },
      );
      pipeline(incoming, onward, () => undefined);
    },
    ({ url }, client, head) => {
      asked.push(url!);
      const [host, port] = url!.split(":");
      const target = connect(Number(port), host, () => {
        client.write("HTTP/1.1 200 OK\r\n\r\n");
        target.write(head);
        pipeline(client, target, client, () => undefined);
      });
      sockets.add(target);
      target.on("error", () => client.destroy());
      client.on("error", () => target.destroy());
    },
  );
  return {
    url: `http://127.0.0.1:${server.port}`,
    asked,
    [Symbol.dispose]() {
      for (const socket of sockets) socket.destroy();
      server[Symbol.dispose]();
    },
  };
}

function stubProxies(env: Record<string, string>): void {
  for (const name of ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]) {
    vi.stubEnv(name, env[name]);
    vi.stubEnv(name.toUpperCase(), undefined);
  }
}

const PROXIES = ["http_proxy", "all_proxy"] as const;

for (const [cloud, describeWithCloud] of Object.entries(CLOUDS)) {
  describeWithCloud(`The object store of ${cloud}`, (newBucket) => {
    it.each(PROXIES)("goes through the proxy that %s names", async (name) => {
      const address = await newBucket();
      using proxy = await startProxy();
      stubProxies({ [name]: proxy.url });
      await using store = await openObjectStore(address);
      await store.put("k", Buffer.from("contents"));
      const large = Buffer.alloc(9_000_000, 1);
      await using upload = store.openUpload("large");
      await upload.write(large);
      await upload.close();
      expect(Buffer.from(await collectBytes((await store.get("k"))!)).toString()).toBe("contents");
      expect((await store.head("large"))?.size).toBe(large.length);
      expect(proxy.asked.length).toBeGreaterThan(0);
      if (cloud === "Azure") return; // its library reads no_proxy once in a process
      const before = proxy.asked.length;
      stubProxies({ [name]: proxy.url, no_proxy: "127.0.0.1" });
      await using direct = await openObjectStore(address);
      expect(await direct.head("k")).toBeDefined();
      expect(proxy.asked).toHaveLength(before);
    });
  });
}

it.each(PROXIES)(
  "The object store over HTTP goes through the proxy that %s names",
  async (name) => {
    using server = await listen((_, response) => response.end("contents"));
    using proxy = await startProxy();
    stubProxies({ [name]: proxy.url });
    await using store = await openObjectStore(`http://127.0.0.1:${server.port}/folder`);
    expect(Buffer.from(await collectBytes((await store.get("k"))!)).toString()).toBe("contents");
    expect(proxy.asked.length).toBeGreaterThan(0);
  },
);
