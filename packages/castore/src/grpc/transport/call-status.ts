import type { IncomingHttpHeaders } from "node:http2";
import { Code } from "@connectrpc/connect";
import { RpcError } from "./rpc-error.ts";

/** The codes that gRPC gives to HTTP statuses of what stands before a server. */
const HTTP_CODES: Readonly<Record<number, Code>> = {
  400: Code.Internal,
  401: Code.Unauthenticated,
  403: Code.PermissionDenied,
  404: Code.Unimplemented,
  408: Code.Unavailable,
  413: Code.ResourceExhausted,
  429: Code.Unavailable,
  502: Code.Unavailable,
  503: Code.Unavailable,
  504: Code.Unavailable,
};

const GRPC_TYPE = /^application\/grpc(?:\+proto)?(?:;|$)/i;

/** What the cause of an error is that something else than a server of gRPC has answered with. */
export class ForeignAnswer {
  readonly httpStatus: number;

  constructor(httpStatus: number) {
    this.httpStatus = httpStatus;
  }
}

/** The error for a response that does not come from a server of gRPC; `undefined` for one that does. */
export function answerError(headers: IncomingHttpHeaders): RpcError | undefined {
  const httpStatus = Number(headers[":status"] ?? 200);
  const contentType = headers["content-type"];
  const isGrpc = contentType === undefined || GRPC_TYPE.test(contentType);
  if (isGrpc && (httpStatus === 200 || headers["grpc-status"] !== undefined)) return undefined;
  const code = HTTP_CODES[httpStatus] ?? Code.Unknown;
  const found = contentType === undefined ? "" : ` and content type ${JSON.stringify(contentType)}`;
  const reason = `expected an answer of a gRPC server, found HTTP status ${httpStatus}${found}`;
  return new RpcError(code, reason, { cause: new ForeignAnswer(httpStatus) });
}

/**
 * The error that the headers or trailers of a gRPC response tell of. `undefined` for a call that has
 * succeeded, `"none"` if there is no status.
 *
 * @param trailers `undefined` if none came, as when everything is said in the headers
 */
export function statusError(
  headers: IncomingHttpHeaders,
  trailers: IncomingHttpHeaders | undefined,
): RpcError | "none" | undefined {
  const foreign = answerError(headers);
  if (foreign !== undefined) return foreign;
  const found = trailers?.["grpc-status"] === undefined ? headers : trailers;
  const status = found["grpc-status"];
  if (status === undefined) return "none";
  if (status === "0") return undefined;
  const code = Number(status);
  if (!(code in Code)) return new RpcError(Code.Internal, `invalid gRPC status "${status}"`);
  const message = decodeStatusMessage(String(found["grpc-message"] ?? ""));
  return new RpcError(code, message, { isAnswer: true });
}

/** Undoes the percent-encoding of a message. Whatever is not encoded as it should be stays as it is. */
function decodeStatusMessage(encoded: string): string {
  if (!encoded.includes("%")) return encoded;
  const latin1 = encoded.replace(/%([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return Buffer.from(latin1, "latin1").toString("utf8");
}
