import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { blake3Digest, MemoryBlobService, MemoryDirectoryService, Outboard } from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import { describeWithTools } from "@tvix/conformance";
import { expect, it } from "vitest";
import { type Outcome, temporaryFolder } from "./harness.ts";
import { type Fixture, startFixture } from "./server-fixture.ts";
import { Terminal } from "./terminal.ts";

/** BLAKE3 of `x86_64-linux`, and the same text in base64. */
const DIGEST = "KOM3/IHEx7YfInAnlJpAElYezq0Sxn9fRz7xuClwNfA=";
const CONTENT = "eDg2XzY0LWxpbnV4";
const UNKNOWN_DIGEST = Buffer.alloc(32).toString("base64");

/** The real handlers over memory. */
function startCastore(options: { addresses?: readonly string[] } = {}): Promise<Fixture> {
  const services = {
    blobService: new MemoryBlobService(),
    directoryService: new MemoryDirectoryService(),
  };
  return startFixture({
    services: castoreServices(services),
    ...options,
  });
}

/** Runs a client to its end. */
async function run(program: string, args: readonly string[], input = ""): Promise<Outcome> {
  using home = temporaryFolder();
  const child = spawn(program, args, { env: { ...process.env, ...homeIn(home.path) } });
  child.stdin.on("error", () => undefined); // it may not want to read
  child.stdin.end(input);
  const [stdout, stderr, [status]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close"),
  ]);
  return { status, stdout, stderr };
}

/** Isolates the clients from the caches of earlier runs. */
function homeIn(folder: string): NodeJS.ProcessEnv {
  return { HOME: folder, XDG_CONFIG_HOME: join(folder, "config"), XDG_CACHE_HOME: folder };
}

describeWithTools("grpcurl", ["grpcurl"], (grpcurl) => {
  const call = (fixture: Fixture, method: string, data: string) =>
    run(grpcurl, ["-plaintext", "-d", data, fixture.address, method]);

  it("lists the services", async () => {
    await using fixture = await startCastore();
    const { stdout } = await run(grpcurl, ["-plaintext", fixture.address, "list"]);
    expect(stdout.trim().split("\n")).toEqual([
      "grpc.health.v1.Health",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
      "tvix.castore.v1.BlobService",
      "tvix.castore.v1.DirectoryService",
      "tvix.castore.v1alpha.BlobBatchService",
      "tvix.castore.v1alpha.DirectoryBatchService",
    ]);
    expect(fixture.lines).toContainEqual(
      expect.objectContaining({ service: "grpc.reflection.v1.ServerReflection", code: "ok" }),
    );
  });

  it("describes a message of an imported file", async () => {
    await using fixture = await startCastore();
    const { stdout } = await run(grpcurl, [
      "-plaintext",
      fixture.address,
      "describe",
      "tvix.castore.v1.DirectoryNode",
    ]);
    expect(stdout).toContain("bytes name = 1;");
    expect(stdout).toContain("uint64 size = 3;");
  });

  it("puts a blob, asks for it and reads it back", async () => {
    await using fixture = await startCastore();
    const put = await call(fixture, "tvix.castore.v1.BlobService/Put", `{"data":"${CONTENT}"}`);
    expect(JSON.parse(put.stdout)).toEqual({ digest: DIGEST });
    const query = JSON.stringify({ digest: DIGEST });
    const stat = await call(fixture, "tvix.castore.v1.BlobService/Stat", query);
    expect([stat.status, JSON.parse(stat.stdout)]).toEqual([0, {}]);
    const read = await call(fixture, "tvix.castore.v1.BlobService/Read", query);
    expect(JSON.parse(read.stdout)).toEqual({ data: CONTENT });
  });

  it("gets the outboard of a blob", async () => {
    await using fixture = await startCastore();
    const data = Buffer.alloc(40_000, "contents");
    const message = JSON.stringify({ data: data.toString("base64") });
    const put = await call(fixture, "tvix.castore.v1.BlobService/Put", message);
    const { digest } = JSON.parse(put.stdout);
    const query = JSON.stringify({ digest, send_bao: true });
    const stat = await call(fixture, "tvix.castore.v1.BlobService/Stat", query);
    const bao = Buffer.from(JSON.parse(stat.stdout).bao, "base64");
    const outboard = Outboard.parse(blake3Digest(data), bao);
    expect(outboard.size).toBe(data.length);
    outboard.verify(data, 0);
    const unknown = JSON.stringify({ digest: UNKNOWN_DIGEST, send_bao: true });
    const absent = await call(fixture, "tvix.castore.v1.BlobService/Stat", unknown);
    expect(absent.stderr).toContain("Code: NotFound");
  });

  it("is told by code what is wrong", async () => {
    await using fixture = await startCastore();
    const stat = (digest: string) =>
      call(fixture, "tvix.castore.v1.BlobService/Stat", JSON.stringify({ digest }));
    expect((await stat(UNKNOWN_DIGEST)).stderr).toContain("Code: NotFound");
    expect((await stat("AAAA")).stderr).toContain("Code: InvalidArgument");
  });

  it("reaches a unix socket", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "socket");
    await using _fixture = await startCastore({ addresses: [path] });
    const { stdout } = await run(grpcurl, ["-plaintext", `unix:${path}`, "list"]);
    expect(stdout).toContain("tvix.castore.v1.BlobService\n");
  });
});

describeWithTools("grpc-health-probe", ["grpc-health-probe"], (probe) => {
  it.each(["", "tvix.castore.v1.DirectoryService"])("finds %j serving", async (service) => {
    await using fixture = await startCastore();
    const { status, stderr } = await run(probe, ["-addr", fixture.address, "-service", service]);
    expect([status, stderr.trim()]).toEqual([0, "status: SERVING"]);
  });

  it("does not find a service that is not there", async () => {
    await using fixture = await startCastore();
    const { status, stderr } = await run(probe, ["-addr", fixture.address, "-service", "none"]);
    expect(status).not.toBe(0);
    expect(stderr).toContain("NotFound");
  });
});

describeWithTools("evans", ["evans"], (evans) => {
  const call = (fixture: Fixture, method: string, input: string) => {
    const [host, port] = fixture.address.split(":");
    const args = ["--host", host!, "--port", port!, "-r", "cli", "call", method];
    return run(evans, args, input);
  };

  it("puts a blob in two messages and reads it back", async () => {
    await using fixture = await startCastore();
    const parts = ["x86_64", "-linux"].map((part) =>
      JSON.stringify({ data: Buffer.from(part).toString("base64") }),
    );
    const put = await call(fixture, "tvix.castore.v1.BlobService.Put", parts.join("\n"));
    expect(JSON.parse(put.stdout)).toEqual({ digest: DIGEST });
    const query = JSON.stringify({ digest: DIGEST });
    const read = await call(fixture, "tvix.castore.v1.BlobService.Read", query);
    expect(JSON.parse(read.stdout)).toEqual({ data: CONTENT });
    expect(fixture.lines).toContainEqual(
      expect.objectContaining({ service: "grpc.reflection.v1alpha.ServerReflection" }),
    );
  });

  it("ends with status 1 and the code when a call is refused", async () => {
    await using fixture = await startCastore();
    const query = JSON.stringify({ digest: UNKNOWN_DIGEST });
    const { status, stderr } = await call(fixture, "tvix.castore.v1.BlobService.Read", query);
    expect(status).toBe(1);
    expect(stderr).toContain("NotFound");
  });
});

describeWithTools("the REPL of evans", ["evans", "script"], (evans, script) => {
  it("puts a file and reads it back", async () => {
    using folder = temporaryFolder();
    const file = join(folder.path, "content");
    writeFileSync(file, "x86_64-linux");
    await using fixture = await startCastore();
    const [host, port] = fixture.address.split(":");
    await using terminal = new Terminal(
      script!,
      `'${evans}' --host ${host} --port ${port} -r repl`,
      { ...process.env, ...homeIn(folder.path) },
    );
    const CONTROL_D = "\x04";
    const prompt = `tvix.castore.v1.BlobService@${fixture.address}> `;

    await terminal.prompt(`${fixture.address}> `);
    await terminal.enter("package tvix.castore.v1");
    await terminal.prompt(`tvix.castore.v1@${fixture.address}> `);
    await terminal.enter("service BlobService");
    await terminal.prompt(prompt);

    await terminal.enter("call Put --bytes-from-file");
    await terminal.prompt("data (TYPE_BYTES) => ");
    await terminal.enter(file);
    await terminal.prompt("data (TYPE_BYTES) => ");
    terminal.press(CONTROL_D);
    expect(await terminal.prompt(prompt)).toContain(`"digest": "${DIGEST}"`);

    await terminal.enter("call Read --bytes-as-base64");
    await terminal.prompt("digest (TYPE_BYTES) => ");
    await terminal.enter(DIGEST);
    expect(await terminal.prompt(prompt)).toContain(`"data": "${CONTENT}"`);
  });
});
