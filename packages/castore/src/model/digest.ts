import { copyBytes, equalBytes, quoteBytes } from "../bytes/byte-string.ts";
import { CastoreError } from "./errors.ts";

/** Stands before a digest in text. */
const PREFIX = "b3:";

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

  /**
   * Parses `b3:` and the digest in base64, as {@link toString} formats it, or in hexadecimal digits of either case.
   *
   * @throws CastoreError `invalid_argument` for anything else
   */
  static parse(text: string): B3Digest {
    const encoded = text.startsWith(PREFIX) ? text.slice(PREFIX.length) : "";
    const encoding = /^[0-9a-f]{64}$/i.test(encoded) ? "hex" : "base64";
    const bytes = Buffer.from(encoded, encoding);
    const isCanonical = encoding === "hex" || bytes.toString("base64") === encoded;
    if (bytes.length !== B3Digest.LENGTH || !isCanonical) {
      throw new CastoreError(
        "invalid_argument",
        `Cannot parse digest ${quoteBytes(Buffer.from(text))}: expected "b3:" and ${B3Digest.LENGTH} bytes, ` +
          "44 characters of base64 or 64 hexadecimal digits",
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
    return PREFIX + Buffer.from(buffer, byteOffset, length).toString("base64");
  }
}
