import { once } from "node:events";
import { lstat, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { listen } from "./listen.ts";
import type { UnixSocketOptions } from "./listen-unix.ts";
import type { Listener } from "./listener.ts";

const opened: Listener[] = [];

/** Listens and says hello to everybody. */
async function hello(address: string, options?: UnixSocketOptions): Promise<readonly Listener[]> {
  const listeners = await listen(
    [address],
    {
      onConnection(socket) {
        socket.on("error", () => undefined); // some only look whether there is anybody
        socket.end("hello");
      },
      onError(error) {
        throw error;
      },
    },
    options,
  );
  opened.push(...listeners);
  return listeners;
}

/** What a unix socket says. */
async function heard(path: string): Promise<string> {
  const socket = connect(path);
  const [data] = await once(socket, "data");
  return String(data);
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map((listener) => listener.stop()));
});

describe("listening on TCP", () => {
  it("takes the same port on both loopback addresses for localhost", async () => {
    const [ipv4, ipv6] = await hello("localhost:0");
    const port = /^127\.0\.0\.1:(\d+)$/.exec(ipv4?.address ?? "")?.[1];
    expect(ipv6?.address).toBe(`[::1]:${port}`);
  });

  it("takes neither loopback address if one of them is in use", async () => {
    const [taken] = await hello("[::1]:0");
    const port = taken?.address.split(":").at(-1);
    await expect(hello(`localhost:${port}`)).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringMatching(
        new RegExp(
          `^Cannot listen on "\\[::1\\]:${port}": already in use .*; stop process ${process.pid} \\(.*\\), or choose another port`,
        ),
      ),
    });
    await expect(hello(`127.0.0.1:${port}`)).resolves.toHaveLength(1);
  });

  it("takes both families for [::]", async () => {
    const [listener] = await hello("[::]:0");
    const port = Number(listener?.address.split(":").at(-1));
    const socket = connect(port, "127.0.0.1");
    expect(String((await once(socket, "data"))[0])).toBe("hello");
  });

  it("refuses an address of another machine", async () => {
    await expect(hello("192.0.2.1:0")).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(
        'Cannot listen on "192.0.2.1:0": expected an address of this machine',
      ),
    });
  });
});

describe("listening on a unix socket", () => {
  let folder: string;
  let path: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "listener-"));
    path = join(folder, "socket");
  });
  afterEach(async () => {
    await rm(folder, { recursive: true });
  });

  it("leaves one file while it lasts, and none after", async () => {
    const [listener] = await hello(path);
    expect(listener?.address).toBe(path);
    expect(await heard(path)).toBe("hello");
    expect(await readdir(folder)).toEqual(["socket"]);
    await listener?.stop();
    expect(await readdir(folder)).toEqual([]);
  });

  it("replaces the socket of a process that is gone", async () => {
    const dead = createServer().listen(join(folder, "dead"));
    await once(dead, "listening");
    await rename(join(folder, "dead"), path);
    dead.close();
    await once(dead, "close");
    expect((await lstat(path)).isSocket()).toBe(true);
    await hello(path);
    expect(await heard(path)).toBe("hello");
  });

  it("refuses a socket that answers, and leaves it alone", async () => {
    await hello(path);
    await expect(hello(path)).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringContaining(
        `Cannot listen on "${path}": a running process already listens there`,
      ),
    });
    expect(await heard(path)).toBe("hello");
    expect(await readdir(folder)).toEqual(["socket"]);
  });

  it("takes the place of a socket that answers if told to", async () => {
    await hello(path);
    const [second] = await hello(path, { unlink: true });
    expect(await heard(path)).toBe("hello");
    await second?.stop();
    expect(await readdir(folder)).toEqual([]);
  });

  it("gives the file the permissions that it is told", async () => {
    await hello(path, { mode: 0o660 });
    expect((await lstat(path)).mode & 0o777).toBe(0o660);
  });

  it("refuses a path with something else than a socket, and leaves it alone", async () => {
    await writeFile(path, "precious");
    await expect(hello(path)).rejects.toMatchObject({ code: "invalid_argument" });
    expect(await readFile(path, "utf8")).toBe("precious");
    expect(await readdir(folder)).toEqual(["socket"]);
  });

  it("refuses a path in a folder that does not exist", async () => {
    await expect(hello(join(folder, "none", "socket"))).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining("expected a folder for the socket, found none"),
    });
  });

  it("does not remove the socket that another process put in its place", async () => {
    const [first] = await hello(path);
    await rename(path, join(folder, "moved"));
    await hello(path);
    await first?.stop();
    expect(await heard(path)).toBe("hello");
  });
});

describe("listening on an abstract name", () => {
  const name = `tvix-store-test-${process.pid}`;

  it("leaves no file, and is refused while another listens there", async () => {
    const [listener] = await hello(`@${name}`);
    expect(listener?.address).toBe(`@${name}`);
    expect(await heard(`\0${name}`)).toBe("hello");
    await expect(hello(`@${name}`)).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringContaining(`Cannot listen on "@${name}": already in use`),
    });
    await listener?.stop();
    await expect(heard(`\0${name}`)).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });
});

describe("listening on what was inherited", () => {
  it("refuses sockets that are another process's, or that do not exist", async () => {
    await expect(hello("sd-listen:grpc")).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining(
        'Cannot listen on "sd-listen:grpc": expected a socket named "grpc" from systemd, found none',
      ),
    });
  });
});
