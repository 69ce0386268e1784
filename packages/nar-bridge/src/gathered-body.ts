import { setImmediate } from "node:timers";
import { freeMemory } from "@tvix/castore";
import type { HttpRequest } from "./exchange.ts";

/** How many bytes are gathered before no more is read, until they are taken. */
const GATHERED_BYTES = 512 * 1024;

/**
 * Reads the body of a request, and gathers what comes within one turn of the event loop: Node.js hands over 64 KiB at a time,
 * and to pass on a piece takes as long as to hash it. Ending early leaves the rest unread. To be iterated once.
 *
 * Iterating throws if the body is cut off. A piece is lent until the next one is asked for.
 */
export async function* gatheredBody(request: HttpRequest): AsyncGenerator<Uint8Array> {
  if (request.readableEnded) return; // it has no body, which a server may have known at once
  let pieces: Buffer[] = [];
  let bytes = 0;
  let room: Buffer | undefined;
  let outcome = request.destroyed ? cutOff() : undefined;
  let wake = () => {};
  const onData = (piece: Buffer) => {
    pieces.push(piece);
    bytes += piece.length;
    if (bytes >= GATHERED_BYTES) request.pause();
    if (pieces.length === 1) setImmediate(() => wake());
  };
  const onEnd = () => {
    outcome ??= { error: undefined };
    wake();
  };
  const onCut = (error?: Error) => {
    outcome ??= cutOff(error);
    wake();
  };
  request.on("data", onData).once("end", onEnd).once("error", onCut).once("close", onCut);
  try {
    for (;;) {
      if (bytes > 0) {
        if (pieces.length > 1) room ??= Buffer.allocUnsafeSlow(2 * GATHERED_BYTES);
        const piece = room === undefined ? pieces[0]! : joined(pieces, bytes, room);
        pieces = [];
        bytes = 0;
        request.resume();
        yield piece;
      } else if (outcome === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      } else if (outcome.error !== undefined) {
        throw outcome.error;
      } else return;
    }
  } finally {
    request.off("data", onData).off("end", onEnd).off("error", onCut).off("close", onCut);
    request.pause();
  }
}

/** Joins pieces, in a buffer if they fit in it. */
function joined(pieces: readonly Buffer[], bytes: number, room: Buffer): Uint8Array {
  if (pieces.length === 1) return pieces[0]!;
  if (bytes > room.length) return Buffer.concat(pieces, bytes);
  let at = 0;
  for (const piece of pieces) {
    at += piece.copy(room, at);
    freeMemory([piece]);
  }
  return room.subarray(0, at);
}

function cutOff(error: Error = new Error("the connection was closed")): {
  readonly error: Error | undefined;
} {
  return { error };
}
