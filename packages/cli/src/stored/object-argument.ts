import { type ObjectName, parseObjectName, STORE_DIR } from "@tvix/store";
import { argumentBytes } from "../arguments.ts";
import { leadIntoStore } from "../lead-into-store.ts";

/**
 * Parses an argument that names something in a store. Any other argument is a path of the local file system that leads into
 * the store dir over symlinks, such as the `result` of nix-build. What is in the store dir need not exist.
 *
 * @throws StoreError `invalid_argument` for anything else
 */
export function objectArgument(argument: string): ObjectName {
  try {
    return parseObjectName(argumentBytes(argument));
  } catch (error) {
    if (argument.startsWith(`${STORE_DIR}/`)) throw error;
    const found = leadIntoStore(argument);
    if (found === undefined) throw error;
    return parseObjectName(Buffer.from([STORE_DIR, ...found.names].join("/"), "latin1"));
  }
}
