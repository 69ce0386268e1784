import { equalBytes, lruCache } from "@tvix/castore";
import {
  fingerprint,
  type NarCalculationService,
  type PathInfo,
  type Signature,
  type SigningKey,
} from "@tvix/store";

/** A key of the cache, and when it signs. */
export interface SigningOptions {
  readonly key: SigningKey;
  /** `stored`: what clients push, for good. `served`: every store path, in answers only. */
  readonly when: "stored" | "served";
}

/** How many signatures are remembered, some hundred bytes each. */
const REMEMBERED = 65_536;

/** Signs store paths whose NAR was verified here. */
export class Signer {
  readonly #options: SigningOptions | undefined;
  readonly #storeDir: string;
  readonly #narCalculationService: NarCalculationService;
  /** Signatures by what they sign; `refused` where the NAR is another one. */
  readonly #known = lruCache<string, Signature | "refused">(REMEMBERED);

  /** @param options Default: nothing is signed */
  constructor(
    options: SigningOptions | undefined,
    services: { storeDir: string; narCalculationService: NarCalculationService },
  ) {
    this.#options = options;
    this.#storeDir = services.storeDir;
    this.#narCalculationService = services.narCalculationService;
  }

  /** Returns a PathInfo as it is to be stored, whose NAR has just been verified. */
  whenStored(pathInfo: PathInfo): PathInfo {
    if (this.#options?.when !== "stored") return pathInfo;
    return withSignature(pathInfo, this.#options.key.sign(this.#textOf(pathInfo)));
  }

  /**
   * Returns a PathInfo as it is to be served. The first time, its NAR is rendered to verify it.
   *
   * @param signal returns what cancels that
   */
  async whenServed(pathInfo: PathInfo, signal: () => AbortSignal): Promise<PathInfo> {
    if (this.#options?.when !== "served") return pathInfo;
    const text = this.#textOf(pathInfo);
    let signature = this.#known.get(text);
    if (signature === undefined) {
      const nar = await this.#narCalculationService.calculateNar(pathInfo.node, {
        signal: signal(),
      });
      const isSame =
        nar.narSize === pathInfo.narSize && equalBytes(nar.narSha256, pathInfo.narSha256);
      signature = isSame ? this.#options.key.sign(text) : "refused";
      this.#known.set(text, signature);
    }
    return signature === "refused" ? pathInfo : withSignature(pathInfo, signature);
  }

  #textOf(pathInfo: PathInfo): string {
    return fingerprint(pathInfo, this.#storeDir);
  }
}

/** Returns a PathInfo with a signature in place of others by the same name. */
function withSignature(pathInfo: PathInfo, signature: Signature): PathInfo {
  const others = pathInfo.signatures.filter(({ name }) => name !== signature.name);
  return { ...pathInfo, signatures: [...others, signature] };
}
