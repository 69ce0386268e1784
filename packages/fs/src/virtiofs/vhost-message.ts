import { CastoreError } from "@tvix/castore";

/** Requests of the vhost-user protocol, as the documentation of QEMU numbers them. */
export const VHOST = {
  getFeatures: 1,
  setFeatures: 2,
  setOwner: 3,
  resetOwner: 4,
  setMemoryTable: 5,
  setVringNumber: 8,
  setVringAddress: 9,
  setVringBase: 10,
  getVringBase: 11,
  setVringKick: 12,
  setVringCall: 13,
  setVringError: 14,
  getProtocolFeatures: 15,
  setProtocolFeatures: 16,
  getQueueNumber: 17,
  setVringEnable: 18,
} as const;

/** Flags of the header: the version in the lowest bits, an answer, and that one is wanted. */
const FLAG = { versionMask: 3, version: 1, reply: 4, needReply: 8 } as const;
const HEADER_BYTES = 12;
/** Longest payload: a table of eight regions. */
const PAYLOAD_BYTES = 264;

/** A message of the process of the virtual machine. */
export interface VhostMessage {
  readonly request: number;
  readonly payload: Buffer;
  /** Whether it is acknowledged if it has no answer of its own. */
  readonly needsReply: boolean;
}

/** Cuts what a socket gives into messages. */
export class VhostMessages {
  #bytes: Buffer = Buffer.alloc(0);

  /** Whether a part of a message waits for the rest. */
  get hasPart(): boolean {
    return this.#bytes.length > 0;
  }

  add(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
  }

  /**
   * Returns the next message; `undefined` until it is whole.
   *
   * @throws CastoreError `invalid_argument` for what is none
   */
  next(): VhostMessage | undefined {
    const bytes = this.#bytes;
    if (bytes.length < HEADER_BYTES) return undefined;
    const request = bytes.readUInt32LE(0);
    const flags = bytes.readUInt32LE(4);
    const size = bytes.readUInt32LE(8);
    if ((flags & FLAG.versionMask) !== FLAG.version || size > PAYLOAD_BYTES) {
      throw refusal(request, `version 1 and up to ${PAYLOAD_BYTES} bytes`, `${flags} and ${size}`);
    }
    if (bytes.length < HEADER_BYTES + size) return undefined;
    this.#bytes = bytes.subarray(HEADER_BYTES + size);
    const payload = bytes.subarray(HEADER_BYTES, HEADER_BYTES + size);
    return { request, payload, needsReply: (flags & FLAG.needReply) !== 0 };
  }
}

/** Returns the answer to a message. */
export function vhostReply(request: number, payload: Uint8Array): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(request, 0);
  header.writeUInt32LE(FLAG.version | FLAG.reply, 4);
  header.writeUInt32LE(payload.length, 8);
  return Buffer.concat([header, payload]);
}

/** Returns an error about a message that breaks the protocol. */
export function refusal(request: number, expected: string, found: string): CastoreError {
  return new CastoreError(
    "invalid_argument",
    `Cannot serve the virtual machine: expected ${expected} in message ${request}, found ${found}`,
  );
}
