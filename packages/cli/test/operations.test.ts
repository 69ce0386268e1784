import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openBlobService, putBlob } from "@tvix/castore";
import { seededBytes } from "@tvix/conformance";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Daemon,
  embeddedIn,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

/** A line of the text format of Prometheus, version 0.0.4. */
const LINE =
  /^(?:#.*|[a-z_][a-z0-9_]*(?:\{[a-z_]+="(?:[^"\\]|\\.)*"(?:,[a-z_]+="(?:[^"\\]|\\.)*")*\})? -?[0-9.e+-]+)?$/i;

const get = async (url: string, token?: string) => {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const response = await fetch(url, { headers });
  return { status: response.status, text: await response.text() };
};

/** Returns the value of a metric; `undefined` if it is not there. */
function metricOf(metrics: string, name: string, labels = ""): number | undefined {
  const line = metrics.split("\n").find((line) => line.startsWith(`${name}${labels}`));
  return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(" ")));
}

describe("a daemon that is watched", () => {
  const folder = temporaryFolder();
  let daemon: Daemon;
  let token: string;
  let url: string;
  beforeAll(async () => {
    const authFile = join(folder.path, "auth.toml");
    const created = await tvixStore([
      ...["token", "create", "watcher", `--auth-file=${authFile}`],
      ...["--scope", "write"],
    ]);
    token = created.stdout.trim();
    const args = ["--listen-address=127.0.0.1:0", `--auth-file=${authFile}`];
    daemon = await startDaemon([...args, ...embeddedIn(folder.path)]);
    url = `http://${daemon.addresses[0]}`;
  });
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  it("tells everybody whether it is alive and ready", async () => {
    expect(await get(`${url}/healthz`)).toEqual({ status: 200, text: "ok\n" });
    expect(await get(`${url}/readyz`)).toEqual({ status: 200, text: "ok\n" });
    expect((await get(`${url}/nix-cache-info`)).status).toBe(401);
  });

  it("tells metrics to whoever may read", async () => {
    expect((await get(`${url}/metrics`)).status).toBe(401);
    const { status, text } = await get(`${url}/metrics`, token);
    expect(status).toBe(200);
    expect(text.split("\n").filter((line) => !LINE.test(line))).toEqual([]);
  });

  it("counts calls, requests, bytes, chunks and files", async () => {
    const tokenFile = join(folder.path, "token");
    writeFileSync(tokenFile, token);
    const address = `grpc+http://${daemon.addresses[0]}?token_file=${tokenFile}`;
    await using blobs = await openBlobService(address);
    const contents = seededBytes("counted", 1_000_000);
    await putBlob(blobs, contents);
    await putBlob(blobs, contents);
    await get(`${url}/${"0".repeat(32)}.narinfo?secret`, token);
    const { text } = await get(`${url}/metrics`, token);
    const put = 'method="tvix.castore.v1.BlobService/Put"';
    expect(metricOf(text, "tvix_rpc_duration_seconds_count", `{${put},code="ok"}`)).toBe(2);
    expect(metricOf(text, "tvix_rpc_received_bytes_total", `{${put}}`)).toBeGreaterThan(2_000_000);
    const absent = '{route="narinfo",code="404"}';
    expect(metricOf(text, "tvix_http_duration_seconds_count", absent)).toBe(1);
    const store = `{kind="blobservices",store="pack://${folder.path}/blobs"}`;
    expect(metricOf(text, "tvix_store_offered_bytes_total", store)).toBe(2_000_000);
    expect(metricOf(text, "tvix_store_added_bytes_total", store)).toBe(1_000_000);
    expect(metricOf(text, "tvix_store_size_bytes", store)).toBeGreaterThan(1_000_000);
    expect(metricOf(text, "tvix_store_free_bytes", store)).toBeGreaterThan(0);
    expect(metricOf(text, "process_open_fds")).toBeGreaterThan(10);
    expect(metricOf(text, "tvix_connections")).toBeGreaterThan(0);
    expect(text).not.toContain("0".repeat(32));
    expect(text).not.toContain("secret");
  });
});

describe("a daemon over a store that takes no compressed chunks", () => {
  it("does not warn of clients that ask whether it does", async () => {
    using folder = temporaryFolder();
    const [, ...others] = embeddedIn(folder.path);
    await using daemon = await startDaemon([
      `--blob-service-addr=objectstore+file://${folder.path}/objects`,
      ...others,
      ...["--listen-address=127.0.0.1:0", "--log-level=info"],
    ]);
    const file = join(folder.path, "file");
    writeFileSync(file, "contents");
    const address = `grpc+http://${daemon.addresses[0]}`;
    const { stderr, status } = await tvixStore(["import", file, ...throughDaemon(address)]);
    expect([stderr, status]).toEqual(["", 0]);
    expect(daemon.log.map(({ msg }) => msg)).not.toContain("call");
  });
});

describe("a daemon whose store does not answer", () => {
  it("is alive and not ready, and serves metrics on an address of their own", async () => {
    using folder = temporaryFolder();
    const [, ...others] = embeddedIn(folder.path);
    await using daemon = await startDaemon([
      `--blob-service-addr=grpc+unix://${folder.path}/nobody?retry_ms=1`,
      ...others,
      ...["--listen-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0"],
    ]);
    const url = `http://${daemon.addresses[0]}`;
    expect((await get(`${url}/healthz`)).status).toBe(200);
    expect(await get(`${url}/readyz`)).toEqual({
      status: 503,
      text: "no answer: blob service; see the log\n",
    });
    const warnings = () => daemon.log.filter(({ level }) => level === 40).map(({ msg }) => msg);
    expect(warnings()).toEqual([
      expect.stringMatching(/^the blob service does not answer: .*nobody/),
    ]);
    expect((await get(`${url}/readyz`)).status).toBe(503);
    expect(warnings()).toHaveLength(1);
    expect((await get(`${url}/metrics`)).status).toBe(404);
    const line = daemon.log.find(({ msg }) => msg === "serving metrics");
    const address = String(line?.addresses);
    expect((await get(`http://${address}/metrics`)).text).toContain("process_cpu_seconds_total");
    expect((await get(`http://${address}/nix-cache-info`)).status).toBe(404);
  });
});
