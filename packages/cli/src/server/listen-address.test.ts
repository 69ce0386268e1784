import { CastoreError } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { formatTcpAddress, isLoopback, parseListenAddress } from "./listen-address.ts";

function refusal(text: string): CastoreError {
  try {
    parseListenAddress(text);
  } catch (error) {
    if (error instanceof CastoreError) return error;
    throw error;
  }
  throw new Error(`"${text}" was accepted`);
}

describe("parseListenAddress", () => {
  it.each([
    ["localhost:8000", "localhost", 8000],
    ["LocalHost:8000", "LocalHost", 8000],
    ["127.0.0.1:8000", "127.0.0.1", 8000],
    ["[::1]:8000", "::1", 8000],
    ["[::ffff:127.0.0.1]:8000", "::ffff:127.0.0.1", 8000],
    ["0.0.0.0:65535", "0.0.0.0", 65535],
    ["[::]:8000", "::", 8000],
    ["[fe80::1%eth0]:8000", "fe80::1%eth0", 8000],
    ["192.0.2.1:0", "192.0.2.1", 0],
    ["store.example.org:443", "store.example.org", 443],
  ])("reads %s as a TCP address", (text, host, port) => {
    expect(parseListenAddress(text)).toEqual({ kind: "tcp", host, port });
  });

  it.each([
    ["@store", { kind: "abstract", name: "store" }],
    ["@run/store:1", { kind: "abstract", name: "run/store:1" }],
    ["sd-listen", { kind: "inherited", name: undefined }],
    ["SD_LISTEN", { kind: "inherited", name: undefined }],
    ["sd-listen-unix", { kind: "inherited", name: undefined }],
    ["sd-listen:*", { kind: "inherited", name: undefined }],
    ["sd-listen:grpc", { kind: "inherited", name: "grpc" }],
    ["inetd", { kind: "stdio" }],
    ["STDIO", { kind: "stdio" }],
    ["-", { kind: "stdio" }],
  ])("reads %s as what it stands for", (text, address) => {
    expect(parseListenAddress(text)).toEqual(address);
  });

  it.each([
    ["/run/tvix/store.sock", "/run/tvix/store.sock"],
    ["./store.sock", "./store.sock"],
    ["run/store.sock", "run/store.sock"],
    ["unix:/run/store.sock", "/run/store.sock"],
    ["unix:///run/store.sock", "///run/store.sock"],
    ["unix:store.sock", "store.sock"],
    ["/run/with:8000", "/run/with:8000"],
  ])("reads %s as the path of a unix socket", (text, path) => {
    expect(parseListenAddress(text)).toEqual({ kind: "unix", path });
  });

  it.each([
    ["", "neither a port nor a path"],
    ["8000", "neither a port nor a path"],
    ["localhost", "neither a port nor a path"],
    [":8000", "no host"],
    ["localhost:", 'the port ""'],
    ["localhost:65536", 'the port "65536"'],
    ["localhost:-1", 'the port "-1"'],
    ["localhost:080", 'the port "080"'],
    ["localhost:http", 'the port "http"'],
    ["::1:8000", "colons outside of brackets"],
    ["[::1]", 'the port "1]"'],
    ["[127.0.0.1]:8000", "no IPv6 address"],
    ["1.2.3:8000", "neither an IPv4 address nor a host name"],
    ["300.1.1.1:8000", "neither an IPv4 address nor a host name"],
    ["a b:8000", "neither an IPv4 address nor a host name"],
    ["*:8000", "neither an IPv4 address nor a host name"],
    ["http://localhost:8000", "an address with a scheme"],
    ["grpc+unix:/run/store.sock", "an address with a scheme"],
    ["localhost:8000/path", "a path after the port"],
    ["[::1]:8000/", "a path after the port"],
    ["unix:", "an empty path"],
    ["@", "an empty name"],
    ["@a\0", "NUL"],
    [`@${"x".repeat(108)}`, "a name of 108 bytes"],
    ["sd-listen:", "an empty name"],
    ["sd-listen:a:b", "a name with a colon"],
    ["/run/store/", "the path of a folder"],
    ["/run/\0", "NUL"],
    [`/${"x".repeat(107)}`, "a path of 108 bytes"],
  ])("refuses %j", (text, found) => {
    const error = refusal(text);
    expect(error.code).toBe("invalid_argument");
    expect(error.message).toContain(`Cannot listen on ${JSON.stringify(text)}`);
    expect(error.message).toContain(found);
  });
});

describe("formatTcpAddress", () => {
  it("writes what parseListenAddress reads", () => {
    for (const text of ["127.0.0.1:8000", "[::1]:0", "store.example.org:443"]) {
      const address = parseListenAddress(text);
      expect(address.kind === "tcp" && formatTcpAddress(address.host, address.port)).toBe(text);
    }
  });
});

describe("isLoopback", () => {
  it.each(["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "LocalHost"])(
    "takes %s",
    (host) => {
      expect(isLoopback(host)).toBe(true);
    },
  );

  it.each(["0.0.0.0", "::", "fe80::1%eth0", "192.0.2.1", "store.example.org"])(
    "does not take %s",
    (host) => {
      expect(isLoopback(host)).toBe(false);
    },
  );
});
