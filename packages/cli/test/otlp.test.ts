import { once } from "node:events";
import { createServer as createHttp1Server } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { describe, expect, it } from "vitest";
import { startDaemon, throughDaemon } from "./harness.ts";

/** The fields of a message of Protocol Buffers, by number: those of a length, as bytes. */
type Fields = ReadonlyMap<number, readonly Uint8Array[]>;

function fieldsOf(message: Uint8Array): Fields {
  const reader = new BinaryReader(message);
  const fields = new Map<number, Uint8Array[]>();
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (type === WireType.LengthDelimited) {
      fields.set(number, [...(fields.get(number) ?? []), reader.bytes()]);
    } else reader.skip(type);
  }
  return fields;
}

/** Returns the messages at a path of field numbers. */
function within(message: Uint8Array, ...path: readonly number[]): Uint8Array[] {
  const [number, ...rest] = path;
  if (number === undefined) return [message];
  return (fieldsOf(message).get(number) ?? []).flatMap((inner) => within(inner, ...rest));
}

const textOf = (message: Uint8Array, ...path: number[]) =>
  Buffer.from(within(message, ...path)[0] ?? []).toString();
const hexOf = (message: Uint8Array, number: number) =>
  Buffer.from(within(message, number)[0] ?? []).toString("hex");

/** What a collector has received, by the numbers of opentelemetry.proto. */
class Received {
  readonly spans: { name: string; traceId: string; spanId: string; parent: string }[] = [];
  readonly metrics: string[] = [];
  readonly services = new Set<string>();

  take(path: string, message: Uint8Array): void {
    const isTraces = /trace/i.test(path);
    for (const resource of within(message, 1, 1)) {
      for (const attribute of within(resource, 1)) {
        if (textOf(attribute, 1) === "service.name") this.services.add(textOf(attribute, 2, 1));
      }
    }
    for (const item of within(message, 1, 2, 2)) {
      if (!isTraces) this.metrics.push(textOf(item, 1));
      else {
        const [traceId, spanId, parent] = [hexOf(item, 1), hexOf(item, 2), hexOf(item, 4)];
        this.spans.push({
          name: textOf(item, 5),
          traceId: traceId!,
          spanId: spanId!,
          parent: parent!,
        });
      }
    }
  }
}

async function startHttpCollector(received: Received) {
  const server = createHttp1Server(async (request, response) => {
    expect(request.headers["content-type"]).toBe("application/x-protobuf");
    received.take(request.url!, await buffer(request));
    response.setHeader("content-type", "application/x-protobuf").end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

async function startGrpcCollector(received: Received) {
  const server = createHttp2Server();
  server.on("stream", async (stream: ServerHttp2Stream, headers) => {
    const body = await buffer(stream);
    received.take(headers[":path"]!, body.subarray(5, 5 + body.readUInt32BE(1)));
    stream.respond(
      { ":status": 200, "content-type": "application/grpc" },
      { waitForTrailers: true },
    );
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(Buffer.alloc(5));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

describe.each([
  ["grpc", startGrpcCollector],
  ["http/protobuf", startHttpCollector],
  [undefined, startHttpCollector],
] as const)("OTLP with the protocol %s", (protocol, start) => {
  it("carries metrics, and spans of the traces that the sampler takes", async () => {
    const received = new Received();
    const collector = await start(received);
    const { port } = collector.address() as AddressInfo;
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
      ...(protocol !== undefined && { OTEL_EXPORTER_OTLP_PROTOCOL: protocol }),
      OTEL_TRACES_SAMPLER: "parentbased_always_off",
      OTEL_SERVICE_NAME: "cache",
      OTEL_METRIC_EXPORT_INTERVAL: "200",
    };
    const args = ["--listen-address=127.0.0.1:0", ...throughDaemon("memory://")];
    await using daemon = await startDaemon(args, { env });
    const url = `http://${daemon.addresses[0]}/${"0".repeat(32)}.narinfo`;
    const traceId = "0af7651916cd43dd8448eb211c80319c";
    const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-01` };
    expect((await fetch(url, { headers })).status).toBe(404);
    expect((await fetch(url)).status).toBe(404);
    await expect.poll(() => received.metrics, { timeout: 20_000 }).not.toEqual([]);
    daemon.process.kill("SIGTERM");
    expect(await daemon.exit).toBe(0);
    collector.close();
    const request = received.spans.find(({ name }) => name === "GET narinfo");
    expect(request).toMatchObject({ traceId, parent: "b7ad6b7169203331" });
    expect(received.spans).toContainEqual(
      expect.objectContaining({
        name: expect.stringMatching(/^PathInfoService\./),
        traceId,
        parent: request!.spanId,
      }),
    );
    expect(new Set(received.spans.map((span) => span.traceId))).toEqual(new Set([traceId]));
    expect(received.metrics).toEqual(
      expect.arrayContaining(["tvix_http_duration_seconds", "process_open_fds"]),
    );
    expect(received.services).toEqual(new Set(["cache"]));
    const lines = daemon.log.filter(({ msg }) => msg === "request");
    expect(lines.map((line) => line.traceId)).toEqual([traceId, expect.any(String)]);
  });
});
