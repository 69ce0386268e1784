import { execFile } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
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

const run = promisify(execFile);

/** The `nix` of a Debian in the folder of services. */
const nixOf = (debian: string) =>
  join(process.env.TVIX_SERVICES ?? "/nowhere", "debian", debian, "usr/bin/nix");

/** Versions of Nix: their launchers, programs, and arguments before the folder. */
const VERSIONS: readonly (readonly [version: string, tools: string[], args: string[]])[] = [
  ["2.8", ["with-nix-root", "nix"], []],
  ["2.26", ["with-nix", nixOf("trixie")], ["trixie"]],
  ["2.34", ["with-nix", nixOf("sid")], ["sid"]],
];

for (const [version, tools, args] of VERSIONS) {
  describeWithTools(
    `Nix ${version} with a token`,
    [...tools, "openssl"],
    (launcher, _nix, openssl) => {
      const folder = temporaryFolder();
      const ca = join(folder.path, "ca.pem");
      let daemon: Daemon;
      let url: string;
      let storePath: string;

      beforeAll(async () => {
        const certificates = new CertificateMaker(openssl!, folder.path);
        const { cert, key } = certificates.make("server");
        const authFile = join(folder.path, "auth.toml");
        for (const scope of ["read", "write"]) {
          const { stdout } = await tvixStore([
            "token",
            "create",
            scope,
            "--scope",
            scope,
            "--auth-file",
            authFile,
          ]);
          writeFileSync(join(folder.path, `${scope}.token`), stdout);
          const netrc = `machine localhost login anybody password ${stdout}`;
          writeFileSync(join(folder.path, `${scope}.netrc`), netrc);
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

      /** Runs `nix` with a netrc file. What it remembers of the server is kept apart for each. */
      const nix = async (netrc: string, ...command: readonly string[]) => {
        const root = join(folder.path, "nix");
        const options = ["--option", "netrc-file", join(folder.path, `${netrc}.netrc`)];
        const features = ["--extra-experimental-features", "nix-command"];
        const env = {
          ...process.env,
          NIX_SSL_CERT_FILE: ca,
          NIX_HOME: join(root, `home-${netrc}`),
        };
        return await run(launcher, [...args, root, "nix", ...features, ...command, ...options], {
          env,
        });
      };

      it("reads what the token allows, and is refused without one", async () => {
        await expect(nix("none", "path-info", "--store", url, storePath)).rejects.toThrow(
          /401|not appear to be a binary cache/, // as 2.8 has it
        );
        const info = await nix("read", "path-info", "--store", url, storePath);
        expect(info.stdout.trim()).toBe(storePath);
        await nix("read", "copy", "--no-check-sigs", "--from", url, storePath);
        expect((await nix("read", "store", "cat", storePath)).stdout).toBe("contents");
      });
    },
  );
}
