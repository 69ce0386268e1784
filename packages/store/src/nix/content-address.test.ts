import { describe, expect, it } from "vitest";
import { formatContentAddress, parseContentAddress } from "./content-address.ts";

describe("a content address", () => {
  it.each([
    ["fixed:md5:2gdcmd7nrzrrph902k2ni4arg6", "flat", "md5"],
    ["fixed:r:sha1:klvrqwfv1dnpca0yh9g1m0nd44a2jb2p", "nar", "sha1"],
    ["fixed:r:sha256:1nyikny5k19nf927wdgj99qnv4raixkk5h8n1wj5r11la9rab843", "nar", "sha256"],
    ["text:sha256:1q1vq5d4jrkjfkb3mw3wy3wc4w2vsfl0lrlw6xdma8z3wrbyvrdz", "text", "sha256"],
  ])("is parsed and formatted: %s", (text, kind, algorithm) => {
    const ca = parseContentAddress(text);
    expect(ca).toMatchObject({ kind, hash: { algorithm } });
    expect(formatContentAddress(ca)).toBe(text);
  });

  it.each([
    ["", 'start with "fixed:"'],
    ["sha256:1q1vq5d4jrkjfkb3mw3wy3wc4w2vsfl0lrlw6xdma8z3wrbyvrdz", 'start with "fixed:"'],
    ["text:md5:2gdcmd7nrzrrph902k2ni4arg6", "expected sha256"],
    ["fixed:r:sha3:00", "expected one of"],
    ["fixed:sha256", "expected one of"],
    ["fixed:sha256:00", "expected 32"],
    ["fixed:toString:00", "expected one of"],
  ])("is refused: %s", (text, reason) => {
    expect(() => parseContentAddress(text)).toThrow(
      expect.objectContaining({
        code: "invalid_argument",
        message: expect.stringContaining(reason),
      }),
    );
  });
});
