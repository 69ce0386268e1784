import { pathComponent, putBlob } from "@tvix/castore";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  Kernel,
  memoryServices,
  putDirectory,
  readBody,
  register,
  requestOf,
} from "../../test/kernel.ts";
import { ERRNO, OPCODE } from "./constants.ts";

const RUNS = { numRuns: 2000, seed: 19 };

async function smallStore() {
  const services = memoryServices();
  const digest = await putBlob(services.blobService, Buffer.from("contents"));
  const node = { type: "file", digest, size: 8n, executable: false } as const;
  const folder = await putDirectory(services, [{ name: pathComponent("file"), node }]);
  const baseName = await register(services, "folder", folder);
  return { services, baseName };
}

test("bytes that are no request are survived, and answered once at most", async () => {
  const { services, baseName } = await smallStore();
  const kernel = new Kernel({ services });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      const before = kernel.answered;
      kernel.send(Buffer.from(bytes));
      expect(kernel.answered - before).toBeLessThanOrEqual(1);
    }),
    RUNS,
  );
  expect(await kernel.walk(baseName, "file")).toBeGreaterThan(2);
});

test("requests with any opcode, nodeid, body and length are survived", async () => {
  const { services, baseName } = await smallStore();
  const kernel = new Kernel({ services });
  const known = await kernel.walk(baseName, "file");
  const opcodes = [...Object.values(OPCODE), 0, 33, 39, 4096, 0xffff_ffff];
  const nodeids = [0n, 1n, 2n, BigInt(known), 2n ** 52n, 2n ** 64n - 1n];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...opcodes),
      fc.constantFrom(...nodeids),
      fc.uint8Array({ maxLength: 120 }),
      fc.nat(200),
      async (opcode, nodeid, body, cut) => {
        const unique = 2n ** 63n + BigInt(cut);
        const message = requestOf({ opcode, unique, nodeid, body });
        kernel.send(message.subarray(0, Math.max(message.length - cut, 0)));
      },
    ),
    RUNS,
  );
  expect((await kernel.read(known, 0, 100)).toString()).toBe("contents");
});

test("a truncated request is refused with EINVAL, one too short for a header is dropped", async () => {
  const kernel = new Kernel();
  for (const opcode of [
    OPCODE.lookup,
    OPCODE.read,
    OPCODE.readdir,
    OPCODE.getxattr,
    OPCODE.forget,
  ]) {
    expect(await kernel.call(opcode, 1, Buffer.alloc(7, 1))).toMatchObject({ errno: ERRNO.EINVAL });
  }
  const before = kernel.answered;
  kernel.send(Buffer.alloc(39));
  expect(kernel.answered).toBe(before);
});

test("a batch that counts more inodes than it has is refused", async () => {
  const body = Buffer.alloc(24);
  body.writeUInt32LE(0xffff_ffff, 0);
  expect(await new Kernel().call(OPCODE.batchForget, 0, body)).toMatchObject({
    errno: ERRNO.EINVAL,
  });
});

test("inodes that were never handed out are stale", async () => {
  const kernel = new Kernel();
  for (const opcode of [OPCODE.getattr, OPCODE.readlink, OPCODE.opendir]) {
    expect(await kernel.call(opcode, 12345)).toMatchObject({ errno: ERRNO.ESTALE });
  }
  const read = readBody({ offset: 0, size: 10 });
  expect(await kernel.call(OPCODE.read, 12345, read)).toMatchObject({ errno: ERRNO.ESTALE });
});

test("a handle that was never opened is refused, and so are writes and unknown operations", async () => {
  const kernel = new Kernel();
  const read = readBody({ handle: 77, offset: 0, size: 100 });
  expect(await kernel.call(OPCODE.readdir, 1, read)).toMatchObject({ errno: ERRNO.EBADF });
  expect(await kernel.call(OPCODE.mkdir, 1)).toMatchObject({ errno: ERRNO.EROFS });
  expect(await kernel.call(999, 1)).toMatchObject({ errno: ERRNO.ENOSYS });
});

test("a kernel of another version is answered as the protocol says", async () => {
  const init = (major: number, minor: number) => {
    const body = Buffer.alloc(64);
    body.writeUInt32LE(major, 0);
    body.writeUInt32LE(minor, 4);
    body.writeUInt32LE(0xffff_ffff, 12);
    return new Kernel().call(OPCODE.init, 0, body);
  };
  const newer = await init(8, 0);
  expect([newer.errno, newer.body.readUInt32LE(0)]).toEqual([0, 7]);
  const same = await init(7, 45);
  expect([same.body.readUInt32LE(0), same.body.readUInt32LE(4)]).toEqual([7, 38]);
  expect(await init(7, 12)).toMatchObject({ errno: ERRNO.EPROTO });
  expect(await init(6, 99)).toMatchObject({ errno: ERRNO.EPROTO });
});
