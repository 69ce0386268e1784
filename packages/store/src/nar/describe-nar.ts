import { formatNixHash, nixHash } from "../nix/nix-hash.ts";
import type { CalculatedNar } from "./nar-calculation-service.ts";

/** Describes a NAR in a message, such as `8 bytes and sha256:...`. */
export function describeNar({ narSize, narSha256 }: CalculatedNar): string {
  return `${narSize} bytes and ${formatNixHash(nixHash("sha256", narSha256))}`;
}
