import type { RandomGenerator } from "pure-rand/types/RandomGenerator";
import { chance, integer, seeded, skewed } from "./random.ts";

/** Fills a buffer with bytes of one kind. */
export type Content = (rng: RandomGenerator, length: number) => Buffer;

/** Bytes that do not compress, as in pictures and archives. */
export const noise: Content = (rng, length) => {
  const words = new Int32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i++) words[i] = rng.next();
  return Buffer.from(words.buffer, 0, length);
};

/** Lines of identifiers and punctuation, which compress as source text does. */
export const text: Content = (rng, length) => {
  const own = Array.from({ length: 48 }, () => WORDS[skewed(rng, WORDS.length)]!);
  const pieces: Buffer[] = [];
  for (let size = 0; size < length; ) {
    const line = [INDENTS[integer(rng, INDENTS.length)]!];
    for (let words = 2 + integer(rng, 7); words > 0; words--) {
      const word = chance(rng, 0.7)
        ? own[skewed(rng, own.length)]
        : WORDS[skewed(rng, WORDS.length)];
      line.push(word!, GLUE[skewed(rng, GLUE.length)]!);
    }
    line.push(LINE_END);
    for (const piece of line) {
      pieces.push(piece);
      size += piece.length;
    }
  }
  return Buffer.concat(pieces, length);
};

/** Instructions with operands, tables and names, which compress as shared libraries do. */
export const library: Content = (rng, length) => {
  const sections: Buffer[] = [];
  for (let size = 0; size < length; ) {
    const kind = integer(rng, 20);
    const section =
      kind === 0
        ? Buffer.alloc(1024 + integer(rng, 8192))
        : kind < 4
          ? text(rng, 4096 + integer(rng, 16384))
          : code(rng, 16384 + integer(rng, 65536));
    sections.push(section);
    size += section.length;
  }
  return Buffer.concat(sections, length);
};

function code(rng: RandomGenerator, length: number): Buffer {
  const near = Array.from({ length: 96 }, () => IDIOMS[skewed(rng, IDIOMS.length)]!);
  const bytes = Buffer.allocUnsafe(length);
  for (let at = 0; at < length; ) {
    const from = chance(rng, 0.55) ? near : INSTRUCTIONS;
    at += from[skewed(rng, from.length)]!.copy(bytes, at);
    if (at < length && chance(rng, 0.8)) bytes[at++] = rng.next();
  }
  return bytes;
}

const VOCABULARY: RandomGenerator = seeded(1);

const SYLLABLES: readonly string[] =
  "re de co in pro con ex get set to str buf len ver ing er tion al ma ta le path node un is".split(
    " ",
  );

const WORDS: readonly Buffer[] = Array.from({ length: 5000 }, () => {
  const syllables = Array.from({ length: 1 + integer(VOCABULARY, 4) }, () => {
    return SYLLABLES[integer(VOCABULARY, SYLLABLES.length)]!;
  });
  return Buffer.from(syllables.join(""));
});

const INDENTS: readonly Buffer[] = ["", "  ", "  ", "    ", "    ", "      "].map((indent) =>
  Buffer.from(indent),
);

const GLUE: readonly Buffer[] = [" ", ".", ", ", "(", ") ", " = ", "::", "->", '"', " + "].map(
  (glue) => Buffer.from(glue),
);

const LINE_END: Buffer = Buffer.from(";\n");

const INSTRUCTIONS: readonly Buffer[] = Array.from({ length: 4096 }, () =>
  noise(VOCABULARY, 2 + integer(VOCABULARY, 7)),
);

/** Instructions that often come one after the other. */
const IDIOMS: readonly Buffer[] = Array.from({ length: 4096 }, () => {
  const instructions = Array.from({ length: 2 + integer(VOCABULARY, 5) }, () => {
    return INSTRUCTIONS[skewed(VOCABULARY, INSTRUCTIONS.length)]!;
  });
  return Buffer.concat(instructions);
});
