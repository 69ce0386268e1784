import { findObject, restoreTree } from "@tvix/store";
import type { ServiceOptions } from "./addresses.ts";
import { absolutePath } from "./arguments.ts";
import type { Interrupt } from "./interrupt.ts";
import { objectArgument } from "./object-argument.ts";
import type { TracingOptions } from "./tracing-option.ts";
import { withServices } from "./with-services.ts";

/** Restores an object to a path of the local file system. */
export async function restore(
  object: string,
  target: string,
  options: ServiceOptions & TracingOptions,
  { signal }: Interrupt,
): Promise<void> {
  await withServices("restore", options, signal, async (services) => {
    const { node } = await findObject(objectArgument(object), services, { signal });
    await restoreTree(node, absolutePath(target), services, { signal });
  });
}
