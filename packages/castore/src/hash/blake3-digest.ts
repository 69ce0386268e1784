import { B3Digest } from "../model/digest.ts";
import { blake3 } from "./blake3.ts";

/** Computes the BLAKE3 digest of bytes, which identifies a blob, a chunk or an encoded directory. */
export function blake3Digest(data: Uint8Array): B3Digest {
  return B3Digest.fromBytes(blake3.hash(data));
}
