import type { IncomingHttpHeaders } from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";

/** HTTP statuses of what stands before a server, and the codes that gRPC gives them. */
const HTTP_CODES: Readonly<Record<number, Code>> = {
  400: Code.Internal,
  401: Code.Unauthenticated,
  403: Code.PermissionDenied,
  404: Code.Unimplemented,
  429: Code.Unavailable,
  502: Code.Unavailable,
  503: Code.Unavailable,
  504: Code.Unavailable,
};

/**
 * The error that the headers or trailers of a gRPC response tell of. `undefined` for a call that has
 * succeeded, `"none"` if there is no status.
 *
 * @param trailers `undefined` if none came, as when everything is said in the headers
 */
export function statusError(
  headers: IncomingHttpHeaders,
  trailers: IncomingHttpHeaders | undefined,
): ConnectError | "none" | undefined {
  const httpStatus = Number(headers[":status"] ?? 200);
  if (httpStatus !== 200) {
    const code = HTTP_CODES[httpStatus] ?? Code.Unknown;
    return new ConnectError(`the server answered with HTTP status ${httpStatus}`, code);
  }
  const contentType = headers["content-type"];
  if (contentType !== undefined && !/^application\/grpc(?:\+proto)?(?:;|$)/i.test(contentType)) {
    return new ConnectError(`the server answered with ${contentType}, not gRPC`, Code.Unknown);
  }
  const found = trailers?.["grpc-status"] === undefined ? headers : trailers;
  const status = found["grpc-status"];
  if (status === undefined) return "none";
  if (status === "0") return undefined;
  const code = Number(status);
  if (!(code in Code)) return new ConnectError(`invalid gRPC status "${status}"`, Code.Internal);
  return new ConnectError(decodeStatusMessage(String(found["grpc-message"] ?? "")), code);
}

/** Undoes the percent-encoding of a message. Whatever is not encoded as it should be stays as it is. */
function decodeStatusMessage(encoded: string): string {
  if (!encoded.includes("%")) return encoded;
  const latin1 = encoded.replace(/%([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return Buffer.from(latin1, "latin1").toString("utf8");
}
