import { CastoreError } from "@tvix/castore";
import type { Logger } from "pino";
import type { GuardingOptions } from "../options/guarding-options.ts";
import { readAuthFile } from "../server/access/auth-file.ts";
import { Guard } from "../server/access/guard.ts";
import { StoreNames } from "../server/access/store-names.ts";
import { TokenAccess } from "../server/access/token-access.ts";
import { UploadLimits } from "../server/access/upload-limits.ts";
import { ReloadedFiles } from "../server/reloaded-files.ts";
import type { TlsFiles } from "../server/tls-front.ts";

/** Who may use a server, by the options of a command. Disposing stops looking at files. */
export class Guarding implements Disposable {
  readonly guard: Guard;
  /** Guards the PathInfo service that is served. */
  readonly storeNames: StoreNames = new StoreNames();
  readonly tls: TlsFiles | undefined;
  readonly #logger: Logger;
  readonly #reloaded: ReloadedFiles[] = [];

  private constructor(options: GuardingOptions, access: TokenAccess | undefined, logger: Logger) {
    this.#logger = logger;
    this.tls = tlsFilesOf(options);
    const { maxUploadSize, maxUploads, maxUploadsPerClient } = options;
    const uploads = new UploadLimits({ maxBytes: maxUploadSize, maxUploads, maxUploadsPerClient });
    this.guard = new Guard({ access, uploads, storeNames: this.storeNames });
    const { authFile } = options;
    if (access !== undefined && authFile !== undefined) {
      const load = async () => access.use(await readAuthFile(authFile));
      this.#reload("auth file", [authFile], load);
    }
  }

  /** @throws CastoreError `invalid_argument` for options that do not belong together, and for an unusable auth file */
  static async open(options: GuardingOptions, logger: Logger): Promise<Guarding> {
    const { authFile } = options;
    const access =
      authFile === undefined
        ? undefined
        : new TokenAccess(await readAuthFile(authFile), {
            onFailure: (failure) => logger.warn(failure, "token refused"),
          });
    return new Guarding(options, access, logger);
  }

  /** Reads the files of TLS again when they change. */
  reloadTls(load: () => Promise<void>): void {
    if (this.tls !== undefined) {
      this.#reload("TLS files", Object.values(this.tls), load);
    }
  }

  [Symbol.dispose](): void {
    process.off("SIGHUP", this.#onHangup);
    for (const files of this.#reloaded) files[Symbol.dispose]();
  }

  #reload(what: string, paths: readonly string[], load: () => Promise<void>): void {
    if (this.#reloaded.length === 0) process.on("SIGHUP", this.#onHangup);
    this.#reloaded.push(new ReloadedFiles({ what, paths, load, logger: this.#logger }));
  }

  readonly #onHangup = (): void => {
    for (const files of this.#reloaded) void files.reload();
  };
}

/**
 * Warns where everybody may write, or tokens can be read by others.
 *
 * @param addresses those that other machines can reach
 */
export function warnOfOpenAddresses(
  { authFile, tlsCert, tlsClientCa }: GuardingOptions,
  logger: Logger,
  addresses: readonly string[],
): void {
  for (const address of addresses) {
    if (authFile === undefined && tlsClientCa === undefined) {
      logger.warn(
        { address },
        "no authentication: everybody who reaches this address can read and write the store",
      );
    } else if (tlsCert === undefined) {
      logger.warn(
        { address },
        "no TLS: whoever is between a client and this address can read its token",
      );
    }
  }
}

function tlsFilesOf({ tlsCert, tlsKey, tlsClientCa }: GuardingOptions): TlsFiles | undefined {
  if (tlsCert !== undefined && tlsKey !== undefined) {
    return { cert: tlsCert, key: tlsKey, ...(tlsClientCa && { clientCa: tlsClientCa }) };
  }
  if (tlsCert ?? tlsKey ?? tlsClientCa) {
    const missing = tlsCert === undefined ? "--tls-cert" : "--tls-key";
    const message = `Cannot serve TLS: expected --tls-cert and --tls-key, found no ${missing}`;
    throw new CastoreError("invalid_argument", message);
  }
  return undefined;
}
