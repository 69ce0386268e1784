import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { CastoreError, type ErrorCode } from "../../model/errors.ts";
import { fromRpcError, RpcError, toRpcError } from "./rpc-error.ts";

const CODES: [ErrorCode, Code][] = [
  ["invalid_argument", Code.InvalidArgument],
  ["not_found", Code.NotFound],
  ["data_loss", Code.DataLoss],
  ["aborted", Code.Aborted],
  ["unavailable", Code.Unavailable],
  ["resource_exhausted", Code.ResourceExhausted],
  ["permission_denied", Code.PermissionDenied],
  ["unimplemented", Code.Unimplemented],
  ["internal", Code.Internal],
];

describe("an error on its way to a client", () => {
  it.each(CODES)("keeps the cause %s", (code, wireCode) => {
    const sent = toRpcError(new CastoreError(code, "Cannot do it: no"));
    expect(sent).toMatchObject({ code: wireCode, rawMessage: "Cannot do it: no" });
    expect(fromRpcError(sent, "Cannot ask")).toMatchObject({
      code,
      message: "Cannot ask: Cannot do it: no",
    });
  });

  it("tells nothing of what nobody expected", () => {
    const sent = toRpcError(new TypeError("secret"));
    expect(sent).toMatchObject({ code: Code.Internal, rawMessage: "Internal error" });
    expect(sent.cause).toBeInstanceOf(TypeError);
  });
});

describe("the error of a call", () => {
  it("is taken by Connect for one of its own", () => {
    const error: unknown = new RpcError(Code.NotFound, "nothing here");
    expect(error).toBeInstanceOf(ConnectError);
    expect(ConnectError.from(error)).toBe(error);
    expect(error).toMatchObject({ rawMessage: "nothing here", metadata: new Headers() });
  });

  it("keeps the code of an error of Connect", () => {
    const error = new ConnectError("nothing here", Code.NotFound);
    expect(RpcError.from(error, Code.Internal)).toMatchObject({
      code: Code.NotFound,
      message: "nothing here",
    });
  });

  it.each(["AbortError", "TimeoutError"])("has the code of a cancelled call for %s", (name) => {
    const { code } = RpcError.from(new DOMException("enough", name), Code.Internal);
    expect(code).toBe(Code.Canceled);
  });
});

describe("an error that a client met", () => {
  it.each([
    ["a server that stopped", new RpcError(Code.Canceled, "stopped")],
    ["a server that took too long", new RpcError(Code.DeadlineExceeded, "late")],
    [
      "a connection that broke",
      new RpcError(Code.Aborted, "reset", { cause: { code: "ECONNRESET" } }),
    ],
  ])("is unavailable for %s", (_, error) => {
    expect(fromRpcError(error, "Cannot ask")).toMatchObject({ code: "unavailable" });
  });

  it("names every address of a host that was tried, as none of them answers", () => {
    const addresses = ["::1:8000", "127.0.0.1:8000"];
    const failures = addresses.map((address) => new Error(`connect ECONNREFUSED ${address}`));
    const cause = Object.assign(new AggregateError(failures), { code: "ECONNREFUSED" });
    expect(fromRpcError(RpcError.from(cause, Code.Unavailable), "Cannot ask")).toMatchObject({
      code: "unavailable",
      message: `Cannot ask: ${failures.map(({ message }) => message).join(", ")}`,
    });
  });

  it("is the reason of whoever cancelled the call", () => {
    const reason = new Error("enough");
    const error = new RpcError(Code.Canceled, "cancelled");
    expect(fromRpcError(error, "Cannot ask", AbortSignal.abort(reason))).toBe(reason);
  });
});
