import { CastoreError } from "@tvix/castore";
import { describe, expect, it } from "vitest";
import { formatTcpAddress, parseListenAddress } from "./listen-address.ts";

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
    ["localhost:8000", "localhost", 8000, true],
    ["LocalHost:8000", "LocalHost", 8000, true],
    ["127.0.0.1:8000", "127.0.0.1", 8000, true],
    ["127.8.9.10:1", "127.8.9.10", 1, true],
    ["[::1]:8000", "::1", 8000, true],
    ["[::ffff:127.0.0.1]:8000", "::ffff:127.0.0.1", 8000, true],
    ["0.0.0.0:65535", "0.0.0.0", 65535, false],
    ["[::]:8000", "::", 8000, false],
    ["[fe80::1%eth0]:8000", "fe80::1%eth0", 8000, false],
    ["192.0.2.1:0", "192.0.2.1", 0, false],
    ["store.example.org:443", "store.example.org", 443, false],
  ])("reads %s as a TCP address", (text, host, port, local) => {
    expect(parseListenAddress(text)).toEqual({ kind: "tcp", host, port, local });
  });

  it.each([
    ["/run/tvix/store.sock", "/run/tvix/store.sock"],
    ["./store.sock", "./store.sock"],
    ["run/store.sock", "run/store.sock"],
    ["unix:/run/store.sock", "/run/store.sock"],
    ["unix:///run/store.sock", "///run/store.sock"],
    ["unix:store.sock", "store.sock"],
    ["/run/with:8000", "/run/with:8000"],
  ])("reads %s as the path of a unix socket, which is local", (text, path) => {
    expect(parseListenAddress(text)).toEqual({ kind: "unix", path, local: true });
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
