import type { B3Digest } from "../digest.ts";

/** The key of what is stored under a digest: `<folder>/b3/<4 hex>/<hex>`, so that no folder gets too large. */
export function objectKey(folder: string, { hex }: B3Digest): string {
  return `${folder}/b3/${hex.slice(0, 4)}/${hex}`;
}
