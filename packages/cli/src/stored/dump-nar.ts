import { createHash } from "node:crypto";
import { equalBytes } from "@tvix/castore";
import {
  findObject,
  formatNixHash,
  formatObjectName,
  nixHash,
  renderNar,
  StoreError,
  type StoreObject,
} from "@tvix/store";
import { absolutePath } from "../arguments.ts";
import type { ServiceOptions } from "../options/addresses.ts";
import type { Services } from "../services.ts";
import type { TracingOptions } from "../telemetry/tracing-option.ts";
import type { Interrupt } from "../terminal/interrupt.ts";
import { writeStdout } from "../terminal/output.ts";
import { NewFile } from "./new-file.ts";
import { objectArgument } from "./object-argument.ts";
import { withServices } from "./with-services.ts";

/** Writes the NAR of an object to a file, or on stdout if that is `-`. */
export async function dumpNar(
  argument: string,
  { output, ...options }: ServiceOptions & TracingOptions & { output: string },
  { signal }: Interrupt,
): Promise<void> {
  await withServices("nar", options, { signal }, async (services) => {
    const object = await findObject(objectArgument(argument), services, { signal });
    if (output === "-") {
      for await (const data of verifiedNar(object, services, signal)) {
        await writeStdout(data, { signal });
      }
    } else {
      await using file = await NewFile.create(absolutePath(output));
      for await (const data of verifiedNar(object, services, signal)) await file.write(data);
      await file.close();
    }
  });
}

/**
 * Renders the NAR of an object, each piece lent until the next one is asked for.
 *
 * @throws StoreError `data_loss`, at the end, if it is that of a store path and not the one that is registered
 */
async function* verifiedNar(
  { name, pathInfo, node }: StoreObject,
  services: Services,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const registered = name.path.length === 0 ? pathInfo?.narSha256 : undefined;
  const hash = createHash("sha256");
  for await (const data of renderNar(node, services, { signal })) {
    if (registered !== undefined) hash.update(data);
    yield data;
  }
  const found = hash.digest();
  if (registered === undefined || equalBytes(found, registered)) return;
  const [expected, actual] = [registered, found].map((digest) =>
    formatNixHash(nixHash("sha256", digest), "sri"),
  );
  throw new StoreError(
    "data_loss",
    `Cannot vouch for the NAR of "${formatObjectName(name)}": expected ${expected}, found ${actual}`,
  );
}
