import { execFile } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "node:tls";
import { promisify } from "node:util";
import { putBlob } from "@tvix/castore";
import { describeWithTools } from "@tvix/conformance";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openServices } from "../src/services.ts";
import { CertificateMaker } from "./certificates.ts";
import {
  addressesOf,
  type Daemon,
  embeddedIn,
  readEverything,
  startDaemon,
  startNarBridge,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";

const run = promisify(execFile);

/** Makes a token and returns it, with the path of a file that has it. */
async function createToken(authFile: string, name: string, ...options: readonly string[]) {
  const args = ["token", "create", name, "--auth-file", authFile, ...options];
  const { stdout, stderr, status } = await tvixStore(args);
  expect([stderr, status]).toEqual(["", 0]);
  const file = join(authFile, `../${name}.token`);
  writeFileSync(file, stdout);
  return { token: stdout.trim(), file };
}

const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

describe("tvix-store token", () => {
  it("creates, lists and revokes tokens, which a daemon notices", async () => {
    using folder = temporaryFolder();
    const authFile = join(folder.path, "auth.toml");
    const { token } = await createToken(authFile, "ci", "--scope", "write", "--expires", "90d");
    await createToken(authFile, "admin", "--scope", "admin", "--store-name", "a-*", "b");
    const list = await tvixStore(["token", "list"], { env: { AUTH_FILE: authFile } });
    expect(list.stdout.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
      ["ID", "NAME", "SCOPES", "STORE NAMES", "EXPIRES"],
      [expect.any(String), "ci", "write", "*", expect.stringMatching(/^20\d\d-/)],
      [expect.any(String), "admin", "admin", "a-*, b", "never"],
      [""],
    ]);

    const memory = ["blob", "directory", "path-info"].map(
      (one) => `--${one}-service-addr=memory://`,
    );
    await using daemon = await startDaemon([
      ...memory,
      ...[
        "--listen-address=127.0.0.1:0",
        "--cache-object-addr=memory://",
        `--auth-file=${authFile}`,
      ],
    ]);
    const url = `http://${daemon.addresses[0]}/nix-cache-info`;
    expect((await fetch(url)).status).toBe(401);
    expect((await fetch(url, bearer(token))).status).toBe(200);

    const before = readFileSync(authFile, "utf8");
    appendFileSync(authFile, "broken = \n");
    daemon.process.kill("SIGHUP");
    await expect
      .poll(() => daemon.log.at(-1))
      .toMatchObject({
        level: 50,
        msg: expect.stringContaining("cannot read the auth file again"),
      });
    expect((await fetch(url, bearer(token))).status).toBe(200);
    writeFileSync(`${authFile}.new`, before);
    renameSync(`${authFile}.new`, authFile);

    const revoked = await tvixStore(["token", "revoke", "ci", "--auth-file", authFile]);
    expect(revoked.stderr).toMatch(/^revoked token [0-9a-f]{12} \(ci\)\n$/);
    await expect
      .poll(async () => (await fetch(url, bearer(token))).status, { timeout: 10_000 })
      .toBe(401);
    expect(JSON.stringify(daemon.log)).not.toContain(token.split("_")[2]);
  });

  it.each([
    [["create", "a b", "--scope", "read"], "expected a name of 1 to 64 letters"],
    [["create", "a"], "required option '--scope <scope...>' not specified"],
    [["create", "a", "--scope", "all"], "Allowed choices are read, write, admin"],
    [["create", "a", "--scope", "read", "--expires", "soon"], "expected a number and h, d, w or y"],
    [["revoke", "a"], 'there is no token "a"'],
    [["list"], "no such file or directory"],
  ])("refuses %j", async (args, reason) => {
    using folder = temporaryFolder();
    const authFile = join(folder.path, "auth.toml");
    const { status, stderr } = await tvixStore(["token", ...args, "--auth-file", authFile]);
    expect([status, stderr]).toEqual([1, expect.stringContaining(reason)]);
  });
});

describeWithTools("a daemon with TLS and tokens", ["openssl", "curl", "grpcurl"], (...tools) => {
  const [openssl, curl, grpcurl] = tools as [string, string, string];
  const folder = temporaryFolder();
  const authFile = join(folder.path, "auth.toml");
  let certificates: CertificateMaker;
  let daemon: Daemon;
  let address: string;
  const tokens: Record<string, { readonly token: string; readonly file: string }> = {};
  const files = { cert: "", key: "" };

  beforeAll(async () => {
    certificates = new CertificateMaker(openssl, folder.path);
    Object.assign(files, certificates.make("server"));
    for (const scope of ["read", "write"]) {
      tokens[scope] = await createToken(authFile, scope, "--scope", scope);
    }
    tokens.named = await createToken(authFile, "named", "--scope=write", "--store-name=allowed-*");
    mkdirSync(join(folder.path, "store"));
    daemon = await startDaemon([
      ...embeddedIn(join(folder.path, "store")),
      ...["--listen-address=127.0.0.1:0", `--listen-address=${join(folder.path, "socket")}`],
      ...[`--auth-file=${authFile}`, `--tls-cert=${files.cert}`, `--tls-key=${files.key}`],
      `--cache-object-addr=file://${folder.path}/objects`,
    ]);
    address = daemon.addresses[0]!;
  });
  afterAll(async () => {
    await daemon?.[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  /** The status of a request by curl, and the version of HTTP. */
  const ask = async (...args: readonly string[]) => {
    const format = "%{http_code} %{http_version}";
    const silent = ["-s", "-o", "/dev/null", "-w", format, "--cacert", certificates.ca];
    const url = `https://${address}/nix-cache-info`;
    return (await run(curl, [...silent, ...args, url])).stdout;
  };

  it("answers curl over both versions of HTTP, on one port", async () => {
    const user = `anybody:${tokens.read!.token}`;
    expect(await ask("-u", user)).toBe("200 2");
    expect(await ask("-u", user, "--http1.1")).toBe("200 1.1");
    expect(await ask("--oauth2-bearer", tokens.read!.token)).toBe("200 2");
    expect(await ask()).toBe("401 2");
    expect(await ask("-X", "PUT", "-u", user)).toBe("403 2");
    await expect(run(curl, ["-s", `https://${address}/`])).rejects.toMatchObject({ code: 60 });
    await expect(run(curl, ["-s", `http://${address}/`])).rejects.toThrow();
  });

  it("answers grpcurl", async () => {
    const call = (token: string | undefined, method: string, data: string) =>
      run(grpcurl, [
        ...["-cacert", certificates.ca, "-d", data],
        ...(token === undefined ? [] : ["-H", `authorization: Bearer ${token}`]),
        ...[address, method],
      ]);
    const put = "tvix.castore.v1.BlobService/Put";
    expect((await call(tokens.write!.token, put, '{"data":"aGVsbG8="}')).stdout).toContain(
      "digest",
    );
    await expect(call(tokens.read!.token, put, "{}")).rejects.toThrow("Code: PermissionDenied");
    await expect(call(undefined, put, "{}")).rejects.toThrow(
      /code = Unauthenticated .*expected a token with the scope "read", found none/,
    );
  });

  it("serves our clients, which take the token from a file", async () => {
    const file = join(folder.path, "allowed-file");
    writeFileSync(file, "contents");
    const url = `grpc+https://${address}`;
    const ca = `tls_ca=${certificates.ca}`;
    const via = (keys: string) => throughDaemon(`${url}?${keys}`);
    const imported = await tvixStore([
      "import",
      file,
      ...via(`${ca}&token_file=${tokens.write!.file}`),
    ]);
    expect(imported.stdout).toMatch(/-allowed-file\n$/);
    expect(await readEverything(via(`${ca}&token_file=${tokens.read!.file}`))).toEqual([
      imported.stdout.trim(),
    ]);
    const refusals: readonly (readonly [keys: string, reason: string])[] = [
      [`${ca}&token_file=${tokens.read!.file}`, 'expected a token with the scope "write"'],
      [ca, "expected a token with the scope"],
      [`token_file=${tokens.write!.file}`, "no authority that is known here"],
      [`${ca}&token_file=${folder.path}/none`, "no such file or directory"],
      [`${ca}&token_file=${certificates.ca}`, "expected a token in one line"],
    ];
    for (const [keys, reason] of refusals) {
      await using services = await openServices(addressesOf(via(keys)));
      const refused = await putBlob(services.blobService, Buffer.from(keys)).catch(String);
      expect(refused).toContain(reason);
      expect(refused).not.toContain(tokens.write!.token);
    }
    const other = join(folder.path, "other");
    writeFileSync(other, "contents");
    const named = via(`${ca}&token_file=${tokens.named!.file}`);
    expect((await tvixStore(["import", file, ...named])).status).toBe(0);
    expect((await tvixStore(["import", other, ...named])).stderr).toContain(
      'the token allows names that match "allowed-*", found "other"',
    );
  });

  it("serves a nar-bridge that has a token, and asks for one itself", async () => {
    const keys = `tls_ca=${certificates.ca}&token_file=${tokens.read!.file}`;
    const store = throughDaemon(`grpc+https://${address}?${keys}`);
    const objects = "--cache-object-addr=memory://";
    const listen = "--listen-address=127.0.0.1:0";
    await using bridge = await startNarBridge([
      ...[...store, objects, listen],
      `--auth-file=${authFile}`,
    ]);
    const [storePath] = await readEverything(store);
    const [, hashPart] = /store\/([^-]*)/.exec(storePath!)!;
    const url = `http://${bridge.addresses[0]}/${hashPart}.narinfo`;
    const found = await fetch(url, bearer(tokens.read!.token));
    expect(await found.text()).toContain(`StorePath: ${storePath}\n`);
    expect((await fetch(url)).status).toBe(401);
  });

  it("serves a nar-bridge by TLS, to clients with a certificate", async () => {
    const [own, client] = [certificates.make("bridge"), certificates.make("client of bridge")];
    await using bridge = await startNarBridge([
      ...[...throughDaemon("memory://"), "--cache-object-addr=memory://"],
      ...["--listen-address=127.0.0.1:0", `--tls-cert=${own.cert}`, `--tls-key=${own.key}`],
      `--tls-client-ca=${certificates.ca}`,
    ]);
    const ask = (...args: readonly string[]) => {
      const url = `https://${bridge.addresses[0]}/nix-cache-info`;
      return run(curl, ["-sf", "--cacert", certificates.ca, ...args, url]);
    };
    const { stdout } = await ask("--cert", client.cert, "--key", client.key);
    expect(stdout).toContain("StoreDir");
    await expect(ask()).rejects.toThrow();
  });

  it("asks for certificates of clients, and takes new ones of its own without a restart", async () => {
    const client = certificates.make("client");
    const own = certificates.make("reloaded");
    await using daemon = await startDaemon([
      ...["blob", "directory", "path-info"].map((one) => `--${one}-service-addr=memory://`),
      ...["--listen-address=127.0.0.1:0", "--cache-object-addr=memory://"],
      ...[`--tls-cert=${own.cert}`, `--tls-key=${own.key}`, `--tls-client-ca=${certificates.ca}`],
    ]);
    const [address] = daemon.addresses;
    const url = `https://${address}/nix-cache-info`;
    const ask = (...args: readonly string[]) =>
      run(curl, ["-sf", "--cacert", certificates.ca, ...args, url]);
    const withKey = ["--cert", client.cert, "--key", client.key];
    expect((await ask(...withKey)).stdout).toContain("StoreDir");
    await expect(ask()).rejects.toThrow();
    const keys = `tls_ca=${certificates.ca}&tls_cert=${client.cert}&tls_key=${client.key}`;
    const file = join(folder.path, "allowed-file");
    const imported = await tvixStore([
      "import",
      file,
      ...throughDaemon(`grpc+https://${address}?${keys}`),
    ]);
    expect([imported.stderr, imported.status]).toEqual(["", 0]);
    const refused = (address: string) =>
      tvixStore(["import", file, "--reread", ...throughDaemon(address)]);
    const { stderr, status } = await refused(`grpc+https://${address}?tls_ca=${certificates.ca}`);
    expect(stderr).toContain("the server asks for a certificate of the client; name one with tls_");
    expect(status).toBe(1);
    expect((await refused(`grpc+https://${address}`)).stderr).toContain("name it with tls_ca\n");
    expect((await refused(`grpc+http://${address}`)).stderr).toContain("name it with grpc+https\n");
    const serial = async () => {
      const [host, port] = address!.split(":");
      const socket = connect({
        ...{ host: host!, port: Number(port), ca: readFileSync(certificates.ca) },
        ...{ cert: readFileSync(client.cert), key: readFileSync(client.key) },
      });
      await once(socket, "secureConnect");
      const { serialNumber } = socket.getPeerCertificate();
      socket.destroy();
      return serialNumber;
    };
    const before = await serial();
    certificates.make("reloaded");
    await expect.poll(serial, { timeout: 10_000 }).not.toBe(before);
    writeFileSync(own.key, "nonsense");
    await expect
      .poll(() => daemon.log.map(({ msg }) => msg), { timeout: 10_000 })
      .toContainEqual(expect.stringContaining("cannot read the TLS files again"));
    expect((await ask(...withKey)).stdout).toContain("StoreDir");
  });
});
