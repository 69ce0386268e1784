import { Code } from "@connectrpc/connect";
import { RpcError } from "@tvix/castore/rpc";

/** Why a request is refused before anything looks at it. */
export type RefusalKind = "unauthenticated" | "forbidden" | "throttled" | "busy" | "too large";

const ANSWERS: Readonly<Record<RefusalKind, { readonly code: Code; readonly httpStatus: number }>> =
  {
    unauthenticated: { code: Code.Unauthenticated, httpStatus: 401 },
    forbidden: { code: Code.PermissionDenied, httpStatus: 403 },
    throttled: { code: Code.ResourceExhausted, httpStatus: 429 },
    busy: { code: Code.ResourceExhausted, httpStatus: 503 },
    "too large": { code: Code.ResourceExhausted, httpStatus: 413 },
  };

/** A request that is refused by access control or by a limit, with its answers in gRPC and in HTTP. */
export class AccessRefusal extends RpcError {
  readonly httpStatus: number;
  /** Headers of the answer in HTTP. */
  readonly httpHeaders: Readonly<Record<string, string>>;

  /** @param retryMs after how long a repetition may succeed, in milliseconds */
  constructor(kind: RefusalKind, message: string, { retryMs }: { retryMs?: number } = {}) {
    super(ANSWERS[kind].code, message);
    this.httpStatus = ANSWERS[kind].httpStatus;
    this.httpHeaders = {
      // Nix and curl have a token for whoever asks for a user name and a password.
      ...(kind === "unauthenticated" && { "www-authenticate": 'Basic realm="tvix-store"' }),
      ...(retryMs !== undefined && { "retry-after": String(Math.ceil(retryMs / 1000)) }),
    };
  }
}
