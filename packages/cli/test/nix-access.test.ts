import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeWithTools } from "@tvix/conformance";
import { afterAll, beforeAll, expect, it } from "vitest";
import { CertificateMaker } from "./certificates.ts";
import {
  type Daemon,
  embeddedIn,
  startDaemon,
  temporaryFolder,
  throughDaemon,
  tvixStore,
} from "./harness.ts";
import { describeWithNix, type Nix } from "./nix-versions.ts";

/** Tokens: their names and scopes, and the store names that they may register. */
const TOKENS: readonly (readonly [name: string, scope: string, ...names: string[]])[] = [
  ["read", "read"],
  ["write", "write"],
  ["named", "write", "--store-name=other-*"],
];

describeWithTools("a daemon with TLS and tokens, for Nix,", ["openssl"], (openssl) => {
  const folder = temporaryFolder();
  const ca = join(folder.path, "ca.pem");
  let daemon: Daemon;
  let url: string;
  let storePath: string;

  beforeAll(async () => {
    const { cert, key } = new CertificateMaker(openssl!, folder.path).make("server");
    const authFile = join(folder.path, "auth.toml");
    for (const [name, scope, ...names] of TOKENS) {
      const args = ["token", "create", name, "--scope", scope, "--auth-file", authFile];
      const { stdout } = await tvixStore([...args, ...names]);
      writeFileSync(join(folder.path, `${name}.token`), stdout);
      const netrc = `machine localhost login anybody password ${stdout}`;
      writeFileSync(join(folder.path, `${name}.netrc`), netrc);
    }
    writeFileSync(join(folder.path, "none.netrc"), "");
    mkdirSync(join(folder.path, "store"));
    daemon = await startDaemon([
      ...embeddedIn(join(folder.path, "store")),
      ...[`--auth-file=${authFile}`, `--tls-cert=${cert}`, `--tls-key=${key}`],
      ...["--listen-address=127.0.0.1:0", `--cache-object-addr=file://${folder.path}/objects`],
    ]);
    const port = daemon.addresses[0]!.split(":")[1];
    url = `https://localhost:${port}`;
    const file = join(folder.path, "imported");
    writeFileSync(file, "contents");
    const grpc = `grpc+${url}?tls_ca=${ca}&token_file=${folder.path}/write.token`;
    storePath = (await tvixStore(["import", file, ...throughDaemon(grpc)])).stdout.trim();
  });
  afterAll(async () => {
    await daemon?.[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  describeWithNix("the client", (version, open) => {
    const own = temporaryFolder();
    let client: Nix;
    beforeAll(() => {
      client = open(own.path);
    });
    afterAll(() => own[Symbol.dispose]());

    /** Runs a program of Nix. What it remembers of the server is kept apart for each user. */
    const runNix = async (user: string, ...command: readonly string[]) => {
      const home = join(client.folder, `home-${user}`);
      const script = command.map((word) => `'${word}'`).join(" ");
      return (await client.run(script, { NIX_SSL_CERT_FILE: ca, NIX_HOME: home })).trim();
    };
    /** Runs `nix` with the netrc file of a user. */
    const nix = (user: string, ...command: readonly string[]) => {
      const options = ["--option", "netrc-file", join(folder.path, `${user}.netrc`)];
      return runNix(user, "nix", ...command, ...options);
    };

    it("is read by whoever has a token", async () => {
      await expect(nix("none", "path-info", "--store", url, storePath)).rejects.toThrow(
        /401|not appear to be a binary cache/, // as 2.8 has it
      );
      expect(await nix("read", "path-info", "--store", url, storePath)).toBe(storePath);
      await nix("read", "copy", "--no-check-sigs", "--from", url, storePath);
      expect(await nix("read", "store", "cat", storePath)).toBe("contents");
    });

    it("takes what the token allows", async () => {
      const file = join(folder.path, `pushed-${version}`);
      writeFileSync(file, version);
      const pushed = await runNix("write", "nix-store", "--add", file);
      for (const user of ["read", "named"]) {
        await expect(nix(user, "copy", "--to", url, pushed)).rejects.toThrow("403");
      }
      await expect(nix("read", "path-info", "--store", url, pushed)).rejects.toThrow("not valid");
      await nix("write", "copy", "--to", url, pushed);
      expect(await nix("write", "path-info", "--store", url, pushed)).toBe(pushed);
    });
  });
});
