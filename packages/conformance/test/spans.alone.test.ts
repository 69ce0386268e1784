/** The suites over composed services whose calls are spans. */
import { context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { TracerProvider } from "@opentelemetry/sdk-trace";
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { openPathInfoService } from "@tvix/store";
import { afterAll, describe, expect, it } from "vitest";
import { blobServiceSuite, directoryServiceSuite, pathInfoServiceSuite } from "../src/index.ts";

/** Names of the spans that have begun and not ended. */
const open = new Map<string, string>();
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
trace.setGlobalTracerProvider(
  new TracerProvider({
    spanProcessors: [
      {
        onStart: (span) => void open.set(span.spanContext().spanId, span.name),
        onEnd: (span) => void open.delete(span.spanContext().spanId),
        forceFlush: async () => undefined,
        shutdown: async () => undefined,
      },
    ],
  }),
);
afterAll(() => trace.disable());

const halves = "near=memory://&far=memory://";

blobServiceSuite("a BlobService whose calls are spans", {
  create: () => openBlobService(`combined://?${halves}`),
  capabilities: { chunks: false },
});

directoryServiceSuite("a DirectoryService whose calls are spans", {
  create: () => openDirectoryService(`cache://?${halves}`),
});

pathInfoServiceSuite("a PathInfoService whose calls are spans", {
  create: () => openPathInfoService(`cache://?${halves}`),
});

describe("whatever becomes of a call", () => {
  it("its span has ended", () => expect([...open.values()]).toEqual([]));
});
