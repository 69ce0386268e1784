import { findObject, type RestoreProgress, restoreTree } from "@tvix/store";
import { absolutePath } from "../arguments.ts";
import type { ServiceOptions } from "../options/addresses.ts";
import type { ProgressOptions } from "../options/progress-option.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import type { NoticeLevel } from "../terminal/notices.ts";
import { openProgress } from "../terminal/progress.ts";
import { objectArgument } from "./object-argument.ts";
import { withServices } from "./with-services.ts";

/** Restores an object to a path of the local file system. */
export async function restore(
  object: string,
  target: string,
  options: ServiceOptions & TracingOptions & ProgressOptions,
  { signal }: Interrupt,
): Promise<void> {
  using progress = await openProgress(options);
  const tell = (message: string, level: NoticeLevel) => progress.tell(message, level);
  await withServices("restore", options, { signal, tell }, async (services) => {
    const { name, node, pathInfo } = await findObject(objectArgument(object), services, { signal });
    const expected = name.path.length === 0 ? pathInfo : undefined;
    if (expected !== undefined) progress.expect({ bytes: Number(expected.narSize) });
    using task = progress.begin(object);
    const onProgress = (step: RestoreProgress) => task.update(step);
    await restoreTree(node, absolutePath(target), services, { signal, onProgress, expected });
    task.finish();
  });
}
