import { constants, type Http2Stream } from "node:http2";
import { Code } from "@connectrpc/connect";
import { RpcError } from "./rpc-error.ts";

/** How long a client may take to notice that its call was answered before it sent everything. */
const STOP_SENDER_MS = 1_000;

/**
 * Ends a stream that was answered although the client is still sending, as a failed upload is. Such a
 * client has a moment to stop by itself; and only when the answer has left, which no event tells, can
 * the stream be closed without losing it.
 */
export function stopSender(stream: Http2Stream): void {
  if (stream.destroyed) return;
  // Node.js would reset a stream that nobody began to read, at the end of the answer.
  if (stream.readableFlowing === null) stream.resume();
  const timer = setInterval(() => {
    if (stream.state.localClose !== 1) return;
    stream.close(constants.NGHTTP2_NO_ERROR);
    stream.resume(); // it is not closed before what has come is read
  }, STOP_SENDER_MS).unref();
  stream.once("close", () => clearInterval(timer));
}

/** The error for a request that ends before all of it has come. */
export function cancelled(cause?: unknown): RpcError {
  return new RpcError(Code.Canceled, "the client ended the call before it was complete", { cause });
}
