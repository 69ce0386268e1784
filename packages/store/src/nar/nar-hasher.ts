import { createHash } from "node:crypto";
import type { CalculatedNar } from "./nar-calculation-service.ts";

/** Computes size and SHA-256 of a NAR from its bytes. */
export class NarHasher {
  readonly #hash = createHash("sha256");
  #size = 0n;

  /** Adds bytes of the NAR, in order. */
  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.#size += BigInt(bytes.length);
  }

  /** Returns size and digest; called once, after the last byte. */
  digest(): CalculatedNar {
    return { narSize: this.#size, narSha256: this.#hash.digest() };
  }
}
