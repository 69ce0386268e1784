import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

/** Paths of a certificate and its key. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** Makes certificates in a folder by `openssl`. */
export class CertificateMaker {
  readonly #openssl: string;
  readonly #folder: string;
  /** The certificate that signs all others. */
  readonly ca: string;
  #serial = 1;

  constructor(openssl: string, folder: string) {
    this.#openssl = openssl;
    this.#folder = folder;
    this.ca = this.#sign("ca", "basicConstraints=critical,CA:TRUE", []).cert;
  }

  /** Makes one for `localhost` and 127.0.0.1, in place of an earlier one of this name. */
  make(name: string): Certificate {
    const signer = ["-CA", this.ca, "-CAkey", join(this.#folder, "ca.key")];
    return this.#sign(name, "subjectAltName=DNS:localhost,IP:127.0.0.1", signer);
  }

  #sign(name: string, extension: string, signer: readonly string[]): Certificate {
    const cert = join(this.#folder, `${name}.pem`);
    const key = join(this.#folder, `${name}.key`);
    const config = join(this.#folder, "openssl.cnf");
    writeFileSync(config, "[req]\ndistinguished_name=name\n[name]\n");
    const request = ["req", "-x509", "-config", config, "-newkey", "ec", "-nodes", "-days", "2"];
    const curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", extension];
    const subject = ["-subj", `/CN=${name}`, "-set_serial", String(this.#serial++)];
    const files = ["-out", cert, "-keyout", key];
    execFileSync(this.#openssl, [...request, ...curve, ...subject, ...signer, ...files], {
      stdio: "pipe",
    });
    return { cert, key };
  }
}
