import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";

/** A token: the name of its entry in the auth file, and a secret. Written `tvx_<id>_<secret>`. */
export interface Token {
  /** 12 hexadecimal digits. Not secret. */
  readonly id: string;
  /** 32 random bytes in base64url. */
  readonly secret: string;
}

/** The hash of a secret, with what it was computed by. Written as a PHC string. */
export interface SecretHash {
  /** Logarithm of the cost factor N, to base 2. */
  readonly logN: number;
  readonly r: number;
  readonly p: number;
  readonly salt: Uint8Array;
  readonly hash: Uint8Array;
}

/** A name of a token, for people and logs. */
export const TOKEN_NAME: RegExp = /^[\w.@+-]{1,64}$/;

const TOKEN = /^tvx_([0-9a-f]{12})_([A-Za-z0-9_-]{43})$/;

const PHC = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/;

const LOG_N = 14;

const SALT_BYTES = 16;
const HASH_BYTES = 32;

/** The most memory that a hash may take, in bytes: an auth file cannot make the daemon take more. */
const MAX_HASH_MEMORY = 64 * 1024 * 1024;

const derive: (
  secret: string,
  salt: Uint8Array,
  length: number,
  options: { N: number; r: number; p: number; maxmem: number },
) => Promise<Buffer> = promisify(scrypt);

/** Returns a new random token. */
export function newToken(): Token {
  return { id: randomBytes(6).toString("hex"), secret: randomBytes(32).toString("base64url") };
}

/** Returns the token that a text is; `undefined` for any other text. */
export function parseToken(text: string): Token | undefined {
  const [, id, secret] = TOKEN.exec(text) ?? [];
  return id === undefined ? undefined : { id, secret: secret! };
}

/** Writes a token, secret and all. */
export function formatToken({ id, secret }: Token): string {
  return `tvx_${id}_${secret}`;
}

/**
 * Returns the hash of a secret, with a new salt.
 *
 * @param logN logarithm of the cost factor, to base 2. Default: 14, for some 50 ms and 16 MiB of memory
 */
export async function hashSecret(secret: string, logN: number = LOG_N): Promise<SecretHash> {
  const parameters = { logN, r: 8, p: 1, salt: randomBytes(SALT_BYTES) };
  return { ...parameters, hash: await deriveHash(secret, parameters) };
}

/** Tells whether a secret has a hash, in a time that does not depend on how much of it is right. */
export async function isSecretOf(secret: string, expected: SecretHash): Promise<boolean> {
  return timingSafeEqual(await deriveHash(secret, expected), expected.hash);
}

/** Writes a hash as a PHC string: `$scrypt$ln=14,r=8,p=1$<salt>$<hash>`, both in base64 without padding. */
export function formatHash({ logN, r, p, salt, hash }: SecretHash): string {
  return `$scrypt$ln=${logN},r=${r},p=${p}$${toBase64(salt)}$${toBase64(hash)}`;
}

/** Parses what {@link formatHash} writes; `undefined` for any other text, and for hashes that take too much memory. */
export function parseHash(text: string): SecretHash | undefined {
  const match = PHC.exec(text);
  if (match === null) return undefined;
  const [logN, r, p] = match.slice(1, 4).map(Number) as [number, number, number];
  const [salt, hash] = match.slice(4).map((part) => Buffer.from(part, "base64"));
  const isUsable =
    logN >= 1 && r >= 1 && p >= 1 && p <= 4 && memoryOf(logN, r, p) <= MAX_HASH_MEMORY;
  return isUsable && hash!.length === HASH_BYTES
    ? { logN, r, p, salt: salt!, hash: hash! }
    : undefined;
}

function deriveHash(
  secret: string,
  { logN, r, p, salt }: Omit<SecretHash, "hash">,
): Promise<Buffer> {
  return derive(secret, salt, HASH_BYTES, { N: 2 ** logN, r, p, maxmem: 2 * MAX_HASH_MEMORY });
}

/** Memory of scrypt in bytes, as OpenSSL counts it. */
function memoryOf(logN: number, r: number, p: number): number {
  return 128 * r * (2 ** logN + p + 2);
}

function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64").replace(/=+$/, "");
}
