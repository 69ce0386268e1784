import { type FileNode, quoteBytes, readFileNode } from "@tvix/castore";
import { findObject, formatObjectName, StoreError, type StoreObject } from "@tvix/store";
import type { ServiceOptions } from "../options/addresses.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { writeStdout } from "../terminal/output.ts";
import { objectArgument } from "./object-argument.ts";
import { forEachArgument, withServices } from "./with-services.ts";

/** Writes the contents of files on stdout, one after the other. */
export async function cat(
  objects: readonly string[],
  options: ServiceOptions & TracingOptions,
  { signal }: Interrupt,
): Promise<void> {
  await withServices("cat", options, { signal }, async (services) => {
    await forEachArgument(objects, async (argument) => {
      const object = await findObject(objectArgument(argument), services, { signal });
      for await (const data of readFileNode(services.blobService, fileOf(object), { signal })) {
        await writeStdout(data, { signal });
      }
    });
  });
}

/**
 * Returns the file that an object is.
 *
 * @throws StoreError `invalid_argument` for anything else
 */
function fileOf({ name, node }: StoreObject): FileNode {
  if (node.type === "file") return node;
  const what =
    node.type === "symlink" ? `a symlink to ${quoteBytes(node.target)}` : `a ${node.type}`;
  throw new StoreError(
    "invalid_argument",
    `Cannot print ${JSON.stringify(formatObjectName(name))}: expected a file, found ${what}`,
  );
}
