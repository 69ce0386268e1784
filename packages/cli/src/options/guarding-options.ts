import { InvalidArgumentError, Option } from "commander";
import { wholeNumber } from "./whole-number.ts";

/** Options of a command that serves, about who may use it and how much. */
export interface GuardingOptions {
  /** Path of the auth file. `undefined`: everybody may do everything. */
  authFile?: string;
  /** Paths of the certificate, its key, and the certificates that sign those of clients. */
  tlsCert?: string;
  tlsKey?: string;
  tlsClientCa?: string;
  /** Largest upload, in bytes. */
  maxUploadSize?: number;
  maxUploads?: number;
  maxUploadsPerClient?: number;
  /** Time limits, in milliseconds. */
  headerTimeout: number;
  bodyTimeout: number;
}

/** Returns the options about who may use a server and how much, with their environment variables. */
export function guardingOptions(): Option[] {
  return [
    new Option(
      "--auth-file <file>",
      'a TOML file with the tokens of those who may use the store, see "tvix-store token" (default: everybody may)',
    ).env("AUTH_FILE"),
    new Option(
      "--tls-cert <file>",
      "certificate in PEM, followed by those up to its root: TCP addresses are served with TLS only",
    ).env("TLS_CERT"),
    new Option("--tls-key <file>", "key of the certificate in PEM").env("TLS_KEY"),
    new Option(
      "--tls-client-ca <file>",
      "certificates in PEM of which one must have signed that of each client (default: clients need none)",
    ).env("TLS_CLIENT_CA"),
    new Option(
      "--max-upload-size <size>",
      "largest upload, in bytes or with KiB, MiB, GiB or TiB, such as 16GiB",
    )
      .env("MAX_UPLOAD_SIZE")
      .argParser(parseSize),
    new Option("--max-uploads <number>", "uploads in progress at once; further ones wait")
      .env("MAX_UPLOADS")
      .argParser(parseCount),
    new Option("--max-uploads-per-client <number>", "how many of them may be of one client")
      .env("MAX_UPLOADS_PER_CLIENT")
      .argParser(parseCount),
    new Option("--header-timeout <time>", "time limit for the header of a request, such as 10s")
      .env("HEADER_TIMEOUT")
      .argParser(parseTime)
      .default(10_000, "10s"),
    new Option(
      "--body-timeout <time>",
      "how long a client may send nothing of a request that is not complete, such as 2m",
    )
      .env("BODY_TIMEOUT")
      .argParser(parseTime)
      .default(120_000, "2m"),
  ];
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

const TIME_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** The longest time limit, in milliseconds: timers take no more. */
const MAX_TIME_MS = 2 ** 31 - 1;

function parseSize(text: string): number {
  const [, count, unit = ""] = /^([1-9][0-9]{0,15}) ?([KMGT]iB)?$/.exec(text) ?? [];
  const bytes = Number(count) * SIZE_UNITS[unit]!;
  if (Number.isSafeInteger(bytes)) return bytes;
  throw refusal("a number of bytes, or one with KiB, MiB, GiB or TiB", text);
}

/** Reads a number from 1. */
export const parseCount: (text: string) => number = wholeNumber(
  /^[1-9][0-9]{0,8}$/,
  "a number from 1",
);

/**
 * Reads a time limit such as `10s`, in milliseconds.
 *
 * @throws InvalidArgumentError for anything else
 */
export function parseTime(text: string): number {
  const [, count, unit = ""] = /^([1-9][0-9]{0,9}) ?(ms|[smh])$/.exec(text) ?? [];
  const timeMs = Number(count) * (TIME_UNITS[unit] ?? Number.NaN);
  if (timeMs <= MAX_TIME_MS) return timeMs;
  throw refusal("a number with ms, s, m or h, of 24 days at most", text);
}

function refusal(expected: string, found: string): InvalidArgumentError {
  return new InvalidArgumentError(`expected ${expected}, found ${JSON.stringify(found)}`);
}
