import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { GetDirectoriesRequestSchema, type GetDirectoriesResponse } from "@tvix/proto/castore";
import { expect, it, vi } from "vitest";
import { encodeDirectory } from "../../directoryservice/encoded-directory.ts";
import { MemoryDirectoryService } from "../../directoryservice/memory.ts";
import { Directory } from "../../model/directory.ts";
import { symlinkTarget } from "../../model/node.ts";
import { pathComponent } from "../../model/path.ts";
import { directoryBatchHandler } from "./directory-batch-handler.ts";

it("reads what is asked for again and again once, and answers in messages of a bounded length", async () => {
  const target = symlinkTarget(Buffer.alloc(4000, "x"));
  const entries = Array.from({ length: 25 }, (_, i) => {
    return { name: pathComponent(`${i}`), node: { type: "symlink", target } as const };
  });
  const directory = encodeDirectory(Directory.from(entries)); // some 100 KB
  const absent = encodeDirectory(Directory.from(entries.slice(1)));
  const service = new MemoryDirectoryService();
  await using putter = service.openPutter();
  await putter.put(directory.directory);
  await putter.close();
  using getMany = vi.spyOn(service, "getMany");
  const asked = Array.from({ length: 64 }, (_, i) => (i === 7 ? absent : directory));
  const digests = asked.map(({ digest }) => digest.bytes);
  const request = create(GetDirectoriesRequestSchema, { digests });
  const context = { signal: new AbortController().signal } as HandlerContext;
  const messages: GetDirectoriesResponse[] = [];
  for await (const message of directoryBatchHandler(service).get(request, context)) {
    messages.push(message as GetDirectoriesResponse);
  }
  expect(getMany.mock.calls.map(([digests]) => digests.length)).toEqual([2]);
  expect(Math.max(...messages.map(({ entries }) => entries.length))).toBe(3); // 256 KiB at most
  const found = messages.flatMap(({ entries }) => entries.map(({ directory }) => directory));
  expect(found.map((one) => one?.symlinks.length)).toEqual(
    asked.map((one) => (one === absent ? undefined : 25)),
  );
});
