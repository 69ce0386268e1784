import { setImmediate as yieldToEvents } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  DirectoryBatchService,
  DirectorySchema,
  DirectoryService,
  GetDirectoriesResponse_EntrySchema,
} from "@tvix/proto/castore";
import { describe, expect, it } from "vitest";
import { directMethods, type ServedService } from "./direct-methods.ts";
import { encodedRequests, encodedStream, encodedUnary } from "./encoded-method.ts";
import { encodedIn, frameEncoded, frameMessage, onlyFieldOf } from "./frames.ts";

const signal = new AbortController().signal;

const directory = (name: string) =>
  create(DirectorySchema, {
    symlinks: [{ name: Buffer.from(name), target: Buffer.from("x".repeat(name.length)) }],
  });
const encode = (name: string) => toBinary(DirectorySchema, directory(name));

/** Whatever the only message of a request is. */
async function* request(): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(0);
}

/** Calls a method of a service straight, whose other methods are not implemented. */
function answer(
  implementation: object,
  path: string,
  send: (piece: Uint8Array) => Promise<void> | undefined,
  requests: AsyncIterable<Uint8Array> = request(),
): Promise<void> {
  const service = path.includes("Batch") ? DirectoryBatchService : DirectoryService;
  const served = { service, implementation } as unknown as ServedService;
  const reserve = async () => undefined;
  return directMethods(served)
    .get(path)!
    .answer(requests, signal, { send, free: () => undefined, reserve });
}

describe("encoded messages in frames", () => {
  it("stand in the stream as encoding them gives, many in one piece", () => {
    const names = ["a", "some-name", "b".repeat(255)];
    const pieces = [...frameEncoded(names.map(encode))];
    expect(pieces.length).toBe(1);
    const expected = names.map((name) => frameMessage(DirectorySchema, directory(name)));
    expect(Buffer.compare(pieces[0]!, Buffer.concat(expected))).toBe(0);
    expect([...encodedIn(pieces[0]!)].map((one) => Buffer.compare(one, encode("a")))[0]).toBe(0);
  });

  it("are the only field of others, of which an absent one is empty", () => {
    const entries = [directory("a"), undefined, directory("b".repeat(255)), directory("")];
    const encoded = entries.map((one) => one && toBinary(DirectorySchema, one));
    const [piece, ...others] = [...frameEncoded(encoded, { isField: true })];
    expect(others).toEqual([]);
    const expected = entries.map((directory) =>
      frameMessage(
        GetDirectoriesResponse_EntrySchema,
        create(GetDirectoriesResponse_EntrySchema, directory && { directory }),
      ),
    );
    expect(Buffer.compare(piece!, Buffer.concat(expected))).toBe(0);
    for (const [i, message] of [...encodedIn(piece!)].entries()) {
      const field = onlyFieldOf(message);
      expect(field && Buffer.from(field)).toEqual(encoded[i] && Buffer.from(encoded[i]));
    }
  });

  it("go into pieces of bounded length", () => {
    const message = encode("c".repeat(200));
    const pieces = [...frameEncoded(Array.from({ length: 2000 }, () => message))];
    expect(pieces.length).toBeGreaterThan(4);
    for (const piece of pieces) expect(piece.length).toBeLessThan(200_000);
    const count = pieces.reduce((sum, piece) => sum + [...encodedIn(piece)].length, 0);
    expect(count).toBe(2000);
    expect([...frameEncoded([])]).toEqual([]);
  });

  it.each([
    ["nothing", []],
    ["another field", [0x12, 1, 0]],
    ["two fields", [0x0a, 1, 0, 0x12, 0]],
    ["the field twice", [0x0a, 1, 0, 0x0a, 1, 0]],
    ["a field without its length", [0x0a]],
    ["a field whose length breaks off", [0x0a, 0x80]],
    ["a field that breaks off", [0x0a, 2, 0]],
    ["a length without end", [0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0]],
  ])("have no only field where there is %s", (_, bytes) => {
    expect(onlyFieldOf(Uint8Array.from(bytes))).toBeUndefined();
  });
});

describe("a method that answers with encoded messages", () => {
  const path = "/tvix.castore.v1.DirectoryService/Get";
  const names = Array.from({ length: 5000 }, (_, i) => `name-${i}`);

  it("sends them as they are, and gives Connect the decoded ones", async () => {
    const get = encodedStream(DirectoryService.method.get, async function* () {
      yield names.slice(0, 2).map(encode);
      yield [encode("last")];
    });
    const sent: Uint8Array[] = [];
    await answer({ get }, path, (piece) => void sent.push(piece));
    const expected = [...names.slice(0, 2), "last"];
    const frames = expected.map((name) => frameMessage(DirectorySchema, directory(name)));
    expect(Buffer.compare(Buffer.concat(sent), Buffer.concat(frames))).toBe(0);
    expect(sent.length).toBe(2);
    const decoded = await Array.fromAsync(get({} as never, { signal }));
    expect(decoded.map(({ symlinks }) => Buffer.from(symlinks[0]!.name).toString())).toEqual(
      expected,
    );
  });

  it("answers with a single one", async () => {
    const message = toBinary(DirectoryBatchService.method.has.output, {
      $typeName: "tvix.castore.v1alpha.HasDirectoriesResponse",
      present: [true, false],
    });
    const has = encodedUnary(DirectoryBatchService.method.has, async () => message);
    const sent: Uint8Array[] = [];
    await answer({ has }, "/tvix.castore.v1alpha.DirectoryBatchService/Has", (piece) => {
      sent.push(piece);
      return undefined;
    });
    expect(sent.map((piece) => [...encodedIn(piece)].map((one) => [...one]))).toEqual([
      [[...message]],
    ]);
    expect((await has({} as never, { signal })).present).toEqual([true, false]);
  });

  it("asks for no more while what it has sent waits, and releases everything when that fails", async () => {
    let asked = 0;
    let released = false;
    const get = encodedStream(DirectoryService.method.get, async function* () {
      try {
        for (;;) {
          asked += 1;
          yield [encode("a")];
        }
      } finally {
        released = true;
      }
    });
    const room = Promise.withResolvers<void>();
    const answering = answer({ get }, path, () => room.promise);
    for (let turn = 0; turn < 20; turn++) await yieldToEvents();
    expect(asked).toBe(1);
    const reason = new Error("cancelled");
    room.reject(reason);
    await expect(answering).rejects.toBe(reason);
    expect(asked).toBe(1);
    expect(released).toBe(true);
  });
});

describe("a method that takes encoded messages", () => {
  it("gets them as they were sent, and from Connect as encoding them gives", async () => {
    const encodings = [encode("a"), Buffer.concat([encode("b"), encode("a")])]; // the second is not canonical
    const taken: Buffer[] = [];
    const put = encodedRequests(DirectoryService.method.put, async (messages) => {
      for await (const message of messages) taken.push(Buffer.from(message));
      return { rootDigest: Buffer.from("root") };
    });
    const sent: Uint8Array[] = [];
    const requests = (async function* () {
      yield* encodings;
    })();
    const send = (piece: Uint8Array) => void sent.push(piece);
    await answer({ put }, "/tvix.castore.v1.DirectoryService/Put", send, requests);
    expect(taken).toEqual(encodings.map((bytes) => Buffer.from(bytes)));
    const { output } = DirectoryService.method.put;
    const response = create(output, { rootDigest: Buffer.from("root") });
    expect(sent.map((piece) => Buffer.from(piece))).toEqual([
      Buffer.from(frameMessage(output, response)),
    ]);

    taken.length = 0;
    const decoded = (async function* () {
      for (const name of ["a", "b"]) yield directory(name);
    })();
    expect(await put(decoded, { signal })).toEqual({ rootDigest: Buffer.from("root") });
    expect(taken).toEqual(["a", "b"].map((name) => Buffer.from(encode(name))));
  });
});
