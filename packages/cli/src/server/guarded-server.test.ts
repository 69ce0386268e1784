import { once } from "node:events";
import {
  type ClientHttp2Session,
  connect,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from "node:http2";
import { text } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { create, type DescMethod, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { MemoryBlobService, MemoryDirectoryService, symlinkTarget } from "@tvix/castore";
import { castoreServices } from "@tvix/castore/rpc";
import { BlobChunkSchema } from "@tvix/proto/castore";
import { Health } from "@tvix/proto/health";
import { v1, v1alpha } from "@tvix/proto/reflection";
import {
  encodePathInfo,
  MemoryPathInfoService,
  RenderingNarCalculationService,
  StorePath,
} from "@tvix/store";
import { storeServices } from "@tvix/store/rpc";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Fixture, openSocket, readToEnd, startFixture } from "../../test/server-fixture.ts";
import { rulesOf, tokenWith } from "../../test/tokens.ts";
import { FailureLimit } from "./access/failure-limit.ts";
import { Guard } from "./access/guard.ts";
import { scopeOfCall } from "./access/rpc-scopes.ts";
import { SCOPES } from "./access/scope.ts";
import { StoreNames } from "./access/store-names.ts";
import { formatToken, newToken } from "./access/token.ts";
import { TokenAccess } from "./access/token-access.ts";
import { UploadLimits } from "./access/upload-limits.ts";

const storeNames = new StoreNames();
const stores = {
  blobService: new MemoryBlobService(),
  directoryService: new MemoryDirectoryService(),
};
const served = [
  ...castoreServices(stores),
  ...storeServices({
    pathInfoService: storeNames.guard(new MemoryPathInfoService()),
    narCalculationService: new RenderingNarCalculationService(stores),
  }),
];

/** Every method that a daemon has. */
const METHODS: readonly DescMethod[] = [
  ...served.map(({ service }) => service),
  Health,
  v1.ServerReflection,
  v1alpha.ServerReflection,
]
  .flatMap(({ methods }) => methods)
  .filter((method) => method !== Health.method.watch); // a call that does not end
const pathOf = ({ parent, name }: DescMethod) => `/${parent.typeName}/${name}`;
const PUT = "/tvix.castore.v1.BlobService/Put";

/** The forms that a call can have: its headers, and how its body is framed. */
const FORMS: Record<string, OutgoingHttpHeaders> = {
  "gRPC, directly": { "content-type": "application/grpc" },
  "gRPC with a deadline": { "content-type": "application/grpc", "grpc-timeout": "5S" },
  "gRPC with compression": { "content-type": "application/grpc", "grpc-encoding": "gzip" },
  "gRPC-web": { "content-type": "application/grpc-web+proto" },
  "Connect, unary": { "content-type": "application/json" },
  "Connect, streaming": { "content-type": "application/connect+json" },
  "no protocol": {},
};

let fixture: Fixture;
let session: ClientHttp2Session;
/** Whose limits the last request with a token counted for, by the name of the token. */
const clients = new Map<string | undefined, string>();
/** The headers `authorization` that are tried, by name. */
const credentials: Record<string, string | undefined> = { none: undefined };
beforeAll(async () => {
  const tokens = await Promise.all([
    ...SCOPES.map((scope) => tokenWith([scope])),
    tokenWith(["admin"], { name: "expired", expiresMs: 1 }),
    tokenWith(["write"], { name: "named", storeNames: ["hello-*", "exact"] }),
  ]);
  for (const { token, rule } of tokens) credentials[rule.name] = `Bearer ${formatToken(token)}`;
  const { token } = tokens[2]!;
  credentials.unknown = `Bearer ${formatToken(newToken())}`;
  credentials.wrong = `Bearer ${formatToken({ ...token, secret: newToken().secret })}`;
  credentials.garbage = "Basic !";
  const access = new TokenAccess(rulesOf(tokens.map(({ rule }) => rule)), {
    failures: new FailureLimit({ burst: 1_000_000 }),
  });
  fixture = await startFixture({
    services: served,
    guard: new Guard({ access, storeNames, uploads: new UploadLimits({ maxBytes: 1_000_000 }) }),
    onOther(request, response, { tokenName, client }) {
      if (request.headers.expect !== undefined) response.writeContinue();
      clients.set(tokenName, client);
      response.end(`hello ${tokenName}`);
    },
  });
  session = connect(fixture.url);
});
afterAll(async () => {
  session.destroy();
  await fixture[Symbol.asyncDispose]();
});

function framed(message: Uint8Array, isCompressed = false): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(Number(isCompressed));
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Makes a request over HTTP/2. */
async function send(headers: OutgoingHttpHeaders, body: Uint8Array) {
  const stream = session.request({ ":method": "POST", te: "trailers", ...headers });
  let answer: IncomingHttpHeaders = {};
  stream.once("response", (found) => {
    answer = found;
  });
  let trailers: IncomingHttpHeaders = {};
  stream.once("trailers", (found) => {
    trailers = found;
  });
  if (body.length > 0) stream.end(body);
  const received = await text(stream);
  return { status: Number(answer[":status"]), headers: answer, trailers, text: received };
}

/** Calls a method with an empty message, and returns the code of the answer. */
async function codeOf(path: string, form: string, authorization?: string): Promise<Code | "other"> {
  const headers = { ":path": path, ...FORMS[form], ...(authorization && { authorization }) };
  const isCompressed = form.includes("compression");
  const body = form.includes("unary")
    ? Buffer.from("{}")
    : framed(isCompressed ? gzipSync("") : new Uint8Array(0), isCompressed);
  const answer = await send(headers, body);
  const status = answer.trailers["grpc-status"] ?? answer.headers["grpc-status"];
  if (status !== undefined) return Number(status);
  if (answer.status === 401) return Code.Unauthenticated;
  return answer.status === 403 ? Code.PermissionDenied : "other";
}

const REFUSED: readonly unknown[] = [Code.Unauthenticated, Code.PermissionDenied];

describe.each(Object.keys(FORMS))("a guarded server, asked by %s,", (form) => {
  it("answers no method to whoever has no valid token, but health", async () => {
    for (const method of METHODS) {
      for (const name of ["none", "expired", "unknown", "wrong", "garbage"]) {
        const code = await codeOf(pathOf(method), form, credentials[name]);
        const isOpen = method.parent.typeName === Health.typeName;
        expect([method.toString(), name, REFUSED.includes(code)]).toEqual([
          method.toString(),
          name,
          !isOpen,
        ]);
        if (!isOpen) expect(code).toBe(Code.Unauthenticated);
      }
    }
  });

  it("answers each method to a token that has its scope", async () => {
    for (const method of METHODS) {
      const scope = scopeOfCall(method);
      for (const given of SCOPES) {
        const code = await codeOf(pathOf(method), form, credentials[given]);
        const isGranted = scope === undefined || SCOPES.indexOf(given) >= SCOPES.indexOf(scope);
        expect([pathOf(method), given, code === Code.PermissionDenied]).toEqual([
          pathOf(method),
          given,
          !isGranted,
        ]);
      }
    }
  });
});

describe("the scopes of methods", () => {
  it("name every method that a daemon has, none of which needs admin", () => {
    for (const method of METHODS) expect(scopeOfCall(method)).not.toBe("admin");
  });

  it("let only admin call what they do not name", async () => {
    for (const path of ["/tvix.castore.v1.BlobService/Delete", "/constructor/toString", "/x"]) {
      const form = "gRPC, directly";
      expect(await codeOf(path, form)).toBe(Code.Unauthenticated);
      expect(await codeOf(path, form, credentials.write)).toBe(Code.PermissionDenied);
      expect(await codeOf(path, form, credentials.admin)).toBe(Code.Unimplemented);
    }
    const [method] = METHODS;
    const unnamed = { ...method!, name: "constructor" } as DescMethod;
    expect(scopeOfCall(unnamed)).toBe("admin");
  });
});

describe("a guarded binary cache", () => {
  it.each([
    ["GET", "/nix-cache-info", "read"],
    ["HEAD", "/nix-cache-info", "read"],
    ["POST", "/get-missing", "read"],
    ["PUT", "/x.narinfo", "write"],
    ["POST", "/x.narinfo", "admin"],
    ["DELETE", "/x.narinfo", "admin"],
    ["OPTIONS", "/x.narinfo", "admin"],
    ["PROPFIND", "/", "admin"],
  ] as const)("answers %s %s to tokens with the scope %s", async (method, path, scope) => {
    const ask = (name: string) => {
      const authorization = credentials[name];
      return fetch(fixture.url + path, { method, headers: authorization ? { authorization } : {} });
    };
    for (const name of ["none", "expired", "unknown", "wrong", "garbage"]) {
      const response = await ask(name);
      expect([name, response.status]).toEqual([name, 401]);
      expect(response.headers.get("www-authenticate")).toBe('Basic realm="tvix-store"');
    }
    for (const given of SCOPES) {
      const response = await ask(given);
      const isGranted = SCOPES.indexOf(given) >= SCOPES.indexOf(scope);
      expect([given, response.status]).toEqual([given, isGranted ? 200 : 403]);
      if (method !== "HEAD" && isGranted) expect(await response.text()).toBe(`hello ${given}`);
    }
  });

  it("answers over HTTP/2 in the same way", async () => {
    const ask = (authorization?: string) =>
      send(
        { ":method": "GET", ":path": "/x", ...(authorization && { authorization }) },
        Buffer.of(),
      );
    expect(await ask()).toMatchObject({
      status: 401,
      headers: { "www-authenticate": 'Basic realm="tvix-store"' },
      text: 'expected a token with the scope "read", found none\n',
    });
    expect(await ask(credentials.read)).toMatchObject({ status: 200, text: "hello read" });
  });

  it("takes the password of HTTP basic for the token", async () => {
    const [, token] = credentials.read!.split(" ");
    const basic = Buffer.from(`anybody:${token}`).toString("base64");
    const response = await fetch(fixture.url, { headers: { authorization: `Basic ${basic}` } });
    expect(await response.text()).toBe("hello read");
  });

  it("counts a request for its token, not for its address", async () => {
    for (const name of ["read", "write"] as const) {
      const response = await fetch(fixture.url, { headers: { authorization: credentials[name]! } });
      await response.text();
    }
    const found = ["read", "write"].map((name) => clients.get(name));
    expect(new Set([...found, "127.0.0.1", undefined]).size).toBe(4);
  });

  it("has a client that is refused not send its body", async () => {
    const ask = async (authorization: string) => {
      const socket = await openSocket(fixture);
      socket.write(
        `PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n${authorization}Expect: 100-continue\r\n\r\n`,
      );
      socket.once("data", (data) => {
        if (data.toString().startsWith("HTTP/1.1 100")) socket.write("abc");
      });
      return await readToEnd(socket);
    };
    expect(await ask("")).toMatch(/^HTTP\/1\.1 401 /);
    expect(await ask(`Authorization: ${credentials.write}\r\n`)).toMatch(
      /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /,
    );
  });

  it("has a client that is refused get the answer while it sends, over HTTP/2", async () => {
    for (const headers of [{}, { "content-type": "application/grpc", "grpc-timeout": "9S" }]) {
      for (let i = 0; i < 20; i++) {
        const stream = session.request({ ":method": "PUT", ":path": "/x", ...headers });
        stream.write(Buffer.alloc(20_000)); // and more would follow
        const errors: unknown[] = [];
        stream.on("error", (error) => errors.push(error));
        const [answer] = await once(stream, "response");
        expect(answer[":status"]).toBe("content-type" in headers ? 200 : 401);
        await text(stream);
        stream.end();
        expect(errors).toEqual([]);
      }
    }
  });

  it("logs who asked, and no token", async () => {
    await fetch(fixture.url, { headers: { authorization: credentials.read! } });
    await codeOf(PUT, "gRPC, directly", credentials.write);
    await fetch(fixture.url, { headers: { authorization: credentials.wrong! } });
    expect(fixture.lines).toContainEqual(
      expect.objectContaining({ method: "Put", token: "write" }),
    );
    expect(fixture.lines).toContainEqual(
      expect.objectContaining({ msg: "request", status: 401, error: "the token is not valid" }),
    );
    const log = JSON.stringify(fixture.lines);
    for (const header of Object.values(credentials)) {
      if (header?.startsWith("Bearer")) expect(log.includes(header.slice(-43))).toBe(false);
    }
  });
});

describe("a token with store names", () => {
  it("registers only store paths with these names", async () => {
    const put = async (name: string, form: string) => {
      const pathInfo = {
        storePath: StorePath.parse(`00bgd045z0d4icpbc2yyz4gx48ak44la-${name}`),
        node: { type: "symlink", target: symlinkTarget(Buffer.from("target")) },
        ...{ references: [], narSize: 1n, narSha256: new Uint8Array(32), signatures: [] },
      } as const;
      const path = "/tvix.store.v1.PathInfoService/Put";
      const headers = { ":path": path, ...FORMS[form], authorization: credentials.named };
      return (await send(headers, framed(encodePathInfo(pathInfo)))).trailers;
    };
    for (const form of ["gRPC, directly", "gRPC with a deadline"]) {
      for (const name of ["hello-2.12", "exact"]) {
        expect(await put(name, form)).toMatchObject({ "grpc-status": "0" });
      }
      for (const name of ["exactly", "shell-hello-", "hello"]) {
        const refused = await put(name, form);
        expect(refused["grpc-status"]).toBe(String(Code.PermissionDenied));
        expect(decodeURIComponent(String(refused["grpc-message"]))).toContain(
          `the token allows names that match "hello-*" or "exact", found "${name}"`,
        );
      }
    }
  });
});

describe("an upload", () => {
  it("is refused when it is larger than uploads may be", async () => {
    const pieces = (bytes: number) =>
      Buffer.concat(
        Array.from({ length: bytes / 100_000 }, () =>
          framed(
            toBinary(BlobChunkSchema, create(BlobChunkSchema, { data: Buffer.alloc(100_000) })),
          ),
        ),
      );
    for (const form of ["gRPC, directly", "gRPC with a deadline"]) {
      const headers = { ":path": PUT, ...FORMS[form], authorization: credentials.write };
      const small = await send(headers, pieces(900_000));
      expect([form, small.trailers["grpc-status"]]).toEqual([form, "0"]);
      const large = await send(headers, pieces(1_100_000));
      expect([form, large.trailers["grpc-status"]]).toEqual([form, String(Code.ResourceExhausted)]);
      expect(decodeURIComponent(String(large.trailers["grpc-message"]))).toContain(
        "at most 1000000 bytes",
      );
    }
  });
});
