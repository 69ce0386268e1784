/**
 * Decodes base64 in its canonical form: padded, without spaces, unused bits zero. Returns `undefined` for
 * anything else, so that a caller can refuse a secret without showing it.
 */
export function decodeBase64(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, "base64");
  return bytes.toString("base64") === text ? bytes : undefined;
}

/** Encodes bytes as base64, padded. */
export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64");
}
