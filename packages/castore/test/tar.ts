const BLOCK = 512;

/** Fields of a header that differ from the defaults. */
export interface Fields {
  contents?: Uint8Array | string;
  /** One character. Default: a regular file. */
  kind?: string;
  target?: string | Uint8Array;
  mode?: number;
  /** Bytes that overwrite the header from an offset on, before the checksum is computed. */
  patches?: Readonly<Record<number, string | Uint8Array>>;
}

/** A member of a tar archive: its header, and its contents. */
export function member(path: string | Uint8Array, fields: Fields = {}): Buffer {
  const { kind = "0", target = "", mode = 0o644, patches = {} } = fields;
  const contents = Buffer.from(fields.contents ?? "");
  const header = Buffer.alloc(BLOCK);
  const put = (at: number, value: string | Uint8Array) => header.set(Buffer.from(value), at);
  put(0, path);
  put(100, octal(mode, 8));
  put(124, octal(contents.length, 12));
  put(156, kind);
  put(157, target);
  put(257, "ustar\x0000");
  for (const [at, value] of Object.entries(patches)) put(Number(at), value);
  put(148, " ".repeat(8));
  put(
    148,
    `${octal(
      header.reduce((sum, byte) => sum + byte),
      7,
    )} `,
  );
  return Buffer.concat([header, padded(contents)]);
}

/** A number as it stands in a field of so many bytes. */
export function octal(value: number, length: number): string {
  return `${value.toString(8).padStart(length - 1, "0")}\0`;
}

/** An extended header of POSIX. */
export function pax(
  records: readonly (readonly [key: string, value: string | Uint8Array])[],
  kind = "x",
): Buffer {
  const lines = records.map(([key, value]) => {
    const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from("\n")]);
    let length = rest.length + 1;
    while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length;
    return Buffer.concat([Buffer.from(`${length}`), rest]);
  });
  return member("PaxHeaders/x", { kind, contents: Buffer.concat(lines) });
}

/** An archive of these members, with its end. */
export function tar(...members: readonly Uint8Array[]): Buffer {
  return Buffer.concat([...members, Buffer.alloc(2 * BLOCK)]);
}

/** Bytes, filled up with zeros to whole blocks. */
export function padded(bytes: Uint8Array): Buffer {
  const length = Math.ceil(bytes.length / BLOCK) * BLOCK;
  return Buffer.concat([bytes], length);
}
