import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { inspect } from "node:util";
import { blake3Digest, openBlobService, putBlob } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { embeddedIn, startDaemon, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";

/** A span as it is sent. */
interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly name: string;
  /** Which process it is of. */
  readonly service: string;
  readonly attributes: Readonly<Record<string, unknown>>;
}

/** An attribute as it is sent. */
interface Attribute {
  readonly key: string;
  readonly value: { readonly stringValue?: string; readonly intValue?: number };
}

interface ExportRequest {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly Attribute[] };
    readonly scopeSpans: readonly {
      readonly spans: readonly (Omit<Span, "attributes" | "service"> & {
        readonly attributes: readonly Attribute[];
      })[];
    }[];
  }[];
}

function valuesOf(attributes: readonly Attribute[]): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue]),
  );
}

/** An OpenTelemetry collector that keeps the received spans. */
async function startCollector() {
  const spans: Span[] = [];
  const bodies: string[] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const data of request) body += data;
    bodies.push(body);
    const { resourceSpans = [] } = JSON.parse(body) as Partial<ExportRequest>; // none are in metrics
    for (const { resource, scopeSpans } of resourceSpans) {
      const service = String(valuesOf(resource.attributes)["service.name"]);
      for (const span of scopeSpans.flatMap(({ spans }) => spans)) {
        spans.push({ ...span, service, attributes: valuesOf(span.attributes) });
      }
    }
    response.setHeader("content-type", "application/json").end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    spans,
    bodies,
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" },
    [Symbol.asyncDispose]: async () => void server.close(),
  };
}

/** Returns a span and its ancestors, outermost first. */
function pathTo(span: Span, spans: readonly Span[]): Span[] {
  const parent = spans.find(
    ({ spanId, traceId }) => spanId === span.parentSpanId && traceId === span.traceId,
  );
  return parent === undefined ? [span] : [...pathTo(parent, spans), span];
}

function writeTree(folder: string): string {
  const tree = join(folder, "tree");
  mkdirSync(tree);
  for (let i = 0; i < 20; i++) writeFileSync(join(tree, `${i}`), `contents of ${i}`);
  return tree;
}

describe("spans", () => {
  it("lead from an import over the daemon to each of its stores", async () => {
    using folder = temporaryFolder();
    await using collector = await startCollector();
    const file = join(folder.path, "stores.toml");
    writeFileSync(
      file,
      `
        [blobservices.default]
        type = "combined"
        near = "disk"
        far = "vault"
        [blobservices.disk]
        type = "memory"
        [blobservices.vault]
        type = "pack"
        path = "${folder.path}/blobs"
        [directoryservices.default]
        type = "cache"
        near = "memory://"
        far = "shelf"
        [directoryservices.shelf]
        type = "sqlite"
        path = "${folder.path}/directories.sqlite"
        [pathinfoservices.default]
        type = "sqlite"
        path = "${folder.path}/path-infos.sqlite"
      `,
    );
    const socket = join(folder.path, "sock");
    await using daemon = await startDaemon(
      [`--listen-address=${socket}`, "--store-composition", file],
      {
        env: { ...collector.env, OTEL_SERVICE_NAME: "the daemon" },
      },
    );
    const client = throughDaemon(`grpc+unix://${socket}`);
    const imported = await tvixStore(["import", writeTree(folder.path), ...client], {
      env: collector.env,
    });
    expect(imported).toMatchObject({ status: 0, stderr: "" });
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);

    const { spans } = collector;
    for (const [store, name, method] of [
      ["disk", "BlobService.putMany", "tvix.castore.v1alpha.BlobBatchService/Put"],
      ["vault", "BlobService.putMany", "tvix.castore.v1alpha.BlobBatchService/Put"],
      ["memory://", "DirectoryService.openPutter", "tvix.castore.v1.DirectoryService/Put"],
      ["shelf", "DirectoryService.openPutter", "tvix.castore.v1.DirectoryService/Put"],
      ["default", "PathInfoService.put", "tvix.store.v1.PathInfoService/Put"],
    ]) {
      const span = spans.find((span) => {
        const { name: found, attributes, service } = span;
        const ofDaemon = service === "the daemon" && attributes["tvix.store.name"] === store;
        return ofDaemon && found === name;
      });
      const path = pathTo(span!, spans).map(({ service, name }) => `${service}: ${name}`);
      const [contract] = name!.split(".");
      expect(path[0]).toBe("tvix-store: tvix-store import");
      expect(path).toContainEqual(expect.stringMatching(`^tvix-store: ${contract}\\.`));
      const client = path.indexOf(`tvix-store: ${method}`);
      expect(path.slice(client, client + 2)).toEqual([
        `tvix-store: ${method}`,
        `the daemon: ${method}`,
      ]);
      expect(path.at(-1)).toBe(`the daemon: ${name}`);
    }
    const call = spans.find(
      ({ name, service }) => /PathInfoService\/Put/.test(name) && service === "the daemon",
    )!;
    expect(call.attributes).toMatchObject({
      "rpc.system.name": "grpc",
      "rpc.method": "tvix.store.v1.PathInfoService/Put",
      "rpc.status_code": "OK",
    });
    const line = daemon.log.find(({ traceId, method }) => traceId && method === "Put");
    expect(line?.traceId).toBe(call.traceId);
  });

  it("are in the trace that a client of Connect names, with the code of a failure", async () => {
    await using collector = await startCollector();
    await using daemon = await startDaemon(
      ["--listen-address=localhost:0", ...throughDaemon("memory://")],
      {
        env: collector.env,
      },
    );
    const traceId = "0af7651916cd43dd8448eb211c80319c";
    const call = async (method: string, request: object) => {
      const url = `http://${daemon.addresses[0]}/tvix.castore.v1.BlobService/${method}`;
      return await fetch(url, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          traceparent: `00-${traceId}-b7ad6b7169203331-01`,
        },
        body: JSON.stringify(request),
      });
    };
    const { bytes } = blake3Digest(Buffer.from("absent"));
    const digest = Buffer.from(bytes).toString("base64");
    expect((await call("Stat", { digest })).status).toBe(404);
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
    const [server, store] = ["tvix.castore.v1.BlobService/Stat", "BlobService.has"].map((name) =>
      collector.spans.find((span) => span.name === name),
    );
    expect(server).toMatchObject({
      traceId,
      parentSpanId: "b7ad6b7169203331",
      attributes: {
        "rpc.system.name": "connectrpc",
        "rpc.status_code": "NOT_FOUND",
        "network.peer.address": expect.stringMatching(/^(127\.0\.0\.1|::1)$/),
      },
    });
    expect(store).toMatchObject({ traceId, parentSpanId: server!.spanId });
  });

  it("have nothing in them that is secret, nor has the log, nor an error", async () => {
    using folder = temporaryFolder();
    await using collector = await startCollector();
    const file = join(folder.path, "stores.toml");
    const endpoint = "http://me:hunter2@127.0.0.1:1";
    const address = `objectstore+s3://near?region=eu-1&endpoint=${encodeURIComponent(endpoint)}`;
    writeFileSync(
      file,
      `
        directoryservices.default.type = "memory"
        pathinfoservices.default.type = "memory"
        [blobservices.default]
        type = "combined"
        near = "${address}"
        far = "bucket"
        [blobservices.bucket]
        type = "objectstore"
        object_store_url = "s3://far"
        object_store_options.region = "eu-1"
        object_store_options.endpoint = "${endpoint}"
      `,
    );
    const socket = join(folder.path, "sock");
    await using daemon = await startDaemon(
      [`--listen-address=${socket}`, "--store-composition", file],
      {
        env: {
          ...collector.env,
          AWS_ACCESS_KEY_ID: "hunter2",
          AWS_SECRET_ACCESS_KEY: "hunter2",
          OTEL_EXPORTER_OTLP_HEADERS: "authorization=hunter2",
        },
      },
    );
    await using client = await openBlobService(`grpc+unix://${socket}`);
    const error: unknown = await client.has(blake3Digest(Buffer.from("x"))).catch((error) => error);
    expect(error).toMatchObject({
      code: "unavailable",
      message: expect.stringContaining("bucket: Cannot look up"),
    });
    // Where the daemon had found out before that the near store cannot be read, it is left out; it may be written to.
    await expect(putBlob(client, Buffer.from("x"))).rejects.toMatchObject({ code: "unavailable" });
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
    const stores = collector.spans.map(({ attributes }) => attributes["tvix.store.name"]);
    expect(stores).toEqual(
      expect.arrayContaining(["default", "objectstore+s3://near?...", "bucket"]),
    );
    expect(daemon.log.map(({ store }) => store)).toContain("default");
    const all = inspect([error, daemon.log, collector.bodies], {
      depth: 20,
      maxStringLength: null,
    });
    expect(all).toContain("objectstore+s3://near?...");
    expect(all).not.toContain("hunter2");
  });

  it("are not taken when OpenTelemetry is disabled, or nobody asks for them", async () => {
    using folder = temporaryFolder();
    await using collector = await startCollector();
    const args = ["import", writeTree(folder.path), ...embeddedIn(folder.path)];
    const disabled = { ...collector.env, OTEL_SDK_DISABLED: "true" };
    for (const env of [disabled, {}]) {
      expect(await tvixStore(args, { env })).toMatchObject({ status: 0, stderr: "" });
    }
    expect(collector.spans).toEqual([]);
  });

  it.each([
    ["cannot be reached", () => undefined],
    ["never answers", () => createTcpServer(() => undefined)],
    ["sends nonsense", () => createTcpServer((socket) => void socket.end("nonsense"))],
  ])("cost a command a line when the collector %s", async (_, create) => {
    using folder = temporaryFolder();
    const server = create();
    server?.listen(0, "127.0.0.1");
    if (server) await once(server, "listening");
    const port = server ? (server.address() as AddressInfo).port : 1;
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
      OTEL_EXPORTER_OTLP_TIMEOUT: "500",
    };
    const args = ["import", writeTree(folder.path), ...embeddedIn(folder.path)];
    const { status, stdout, stderr } = await tvixStore(args, { env });
    expect([status, stderr]).toEqual([
      0,
      expect.stringMatching(/^tvix-store: Cannot send spans: .*\n$/),
    ]);
    expect(stdout).toMatch(/^\/nix\/store\//);
    const socket = join(folder.path, "sock");
    const stores = embeddedIn(join(folder.path, "daemon"));
    await using daemon = await startDaemon([`--listen-address=${socket}`, ...stores], { env });
    await tvixStore([
      "import",
      join(folder.path, "tree"),
      ...throughDaemon(`grpc+unix://${socket}`),
    ]);
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
    const lines = daemon.log.filter(({ msg }) => /Cannot send spans/.test(String(msg)));
    expect(lines).toEqual([expect.objectContaining({ level: 40 })]);
    server?.close();
  });

  it("cost a command a line when nobody understands where they should go", async () => {
    using folder = temporaryFolder();
    const args = ["import", writeTree(folder.path), ...embeddedIn(folder.path), "--otlp"];
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: "nowhere" };
    const { status, stderr } = await tvixStore(args, { env });
    expect([status, stderr]).toEqual([
      0,
      expect.stringMatching(/^tvix-store: Cannot send spans: .*\n$/),
    ]);
  });

  it.each([
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: "carrier pigeon" }, "grpc, http/protobuf, http/json"],
    [{ OTEL_TRACES_SAMPLER: "coin" }, "always_on, always_off, traceidratio"],
    [{ OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "2" }, "from 0 to 1"],
  ])("are not sent with %s, and a line says what is known", async (env, known) => {
    using folder = temporaryFolder();
    const args = ["import", writeTree(folder.path), ...embeddedIn(folder.path), "--otlp"];
    const { status, stderr } = await tvixStore(args, { env });
    expect(status).toBe(0);
    expect(stderr).toMatch(/^tvix-store: Cannot send spans: expected OTEL_\w+ to be .*\n$/);
    expect(stderr).toContain(known);
  });
});
