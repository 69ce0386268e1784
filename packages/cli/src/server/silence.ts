import type { IncomingMessage } from "node:http";
import { constants, type Http2Stream, type ServerHttp2Stream } from "node:http2";
import { Code } from "@connectrpc/connect";
import { RpcError } from "@tvix/castore/rpc";
import type { HttpRequest } from "./one-port.ts";

/**
 * Ends a request whose client sends nothing for too long although it is not complete. The time in which the server reads
 * nothing does not count.
 *
 * @param onSilence called before it is ended, with the reason
 */
export function limitSilence(
  request: HttpRequest | ServerHttp2Stream,
  timeoutMs: number,
  onSilence: (reason: RpcError) => void,
): void {
  if (isComplete(request)) return;
  request.setTimeout(timeoutMs, () => {
    if (isComplete(request)) return;
    if (request.readableLength > 0) {
      request.setTimeout(timeoutMs);
      return;
    }
    const message = `the client sent nothing of its request for ${timeoutMs} ms`;
    onSilence(new RpcError(Code.ResourceExhausted, message));
    const stream = streamOf(request);
    if (stream === undefined) request.destroy();
    else stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  });
}

/** Tells whether everything of a request has come. */
function isComplete(request: HttpRequest | ServerHttp2Stream): boolean {
  const stream = streamOf(request);
  if (stream === undefined)
    return (request as IncomingMessage).complete || isBodiless(request as IncomingMessage);
  return stream.closed || stream.destroyed || stream.state.remoteClose === 1;
}

/** Tells whether a request over HTTP/1.1 ends with its header, before Node.js does: RFC 9112, section 6.3. */
function isBodiless({ headers }: IncomingMessage): boolean {
  return headers["content-length"] === undefined && headers["transfer-encoding"] === undefined;
}

function streamOf(request: HttpRequest | ServerHttp2Stream): Http2Stream | undefined {
  if ("session" in request) return request;
  return "stream" in request ? request.stream : undefined;
}
