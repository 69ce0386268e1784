/** The program of a lane: runs the functions that it is asked for. One begins when those before it end or wait. */
import { parentPort } from "node:worker_threads";
import { CastoreError } from "../model/errors.ts";
import type { LaneContext, LaneReply, LaneRequest } from "./lane.ts";

type Run = (input: unknown, context: LaneContext) => unknown;

const modules = new Map<string, Record<string, Run>>();
const port = parentPort!;

port.on("message", (request: LaneRequest) => void answer(request));
port.postMessage({ isReady: true } satisfies LaneReply);

async function answer({ id, filename, name, input }: LaneRequest): Promise<void> {
  const transfers: ArrayBuffer[] = [];
  const reply = (message: LaneReply) => port.postMessage(message, transfers.splice(0));
  const context: LaneContext = {
    transfer: (buffer) => void transfers.push(buffer),
  };
  try {
    let module = modules.get(filename);
    if (module === undefined) {
      module = (await import(filename)) as Record<string, Run>;
      modules.set(filename, module);
    }
    const result = module[name]!(input, context);
    reply({ id, result: result instanceof Promise ? await result : result });
  } catch (error) {
    transfers.length = 0;
    // An error would lose its fields on the way to another thread.
    const { code, message, stack = message } = error as Error & { code: string };
    reply({ id, failure: error instanceof CastoreError ? { code, message } : { message: stack } });
  }
}
