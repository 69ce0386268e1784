import { copyBytes, equalBytes } from "../bytes/byte-string.ts";
import { CastoreError } from "./errors.ts";

/** A BLAKE3 digest, 32 bytes: the name of a blob, a chunk or a directory. */
export class B3Digest {
  /** Length of a digest in bytes. */
  static readonly LENGTH = 32;

  /** The digest itself, 32 bytes, not to be changed. */
  readonly bytes: Uint8Array;

  private constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /**
   * Takes 32 bytes as a digest, without a copy.
   *
   * @throws CastoreError `invalid_argument` for any other length
   */
  static fromBytes(bytes: Uint8Array): B3Digest {
    if (bytes.length !== B3Digest.LENGTH) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot use ${bytes.length} bytes as a BLAKE3 digest: expected ${B3Digest.LENGTH}`,
      );
    }
    return new B3Digest(bytes);
  }

  /** The same digest in memory of its own: one that was taken from a buffer keeps all of that alive. */
  copy(): B3Digest {
    return new B3Digest(copyBytes(this.bytes));
  }

  /** Whether both are the same digest. */
  equals(other: B3Digest): boolean {
    return equalBytes(this.bytes, other.bytes);
  }

  /** 64 lower-case hexadecimal digits. Also serves as the key in a Map. */
  get hex(): string {
    const { buffer, byteOffset, length } = this.bytes;
    return Buffer.from(buffer, byteOffset, length).toString("hex");
  }

  /** `b3:` and the digest in base64, as it stands in messages and logs. */
  toString(): string {
    const { buffer, byteOffset, length } = this.bytes;
    return `b3:${Buffer.from(buffer, byteOffset, length).toString("base64")}`;
  }
}
