import type { Exchange, Headers } from "./exchange.ts";
import { HttpError } from "./http-error.ts";
import type { SideObjects } from "./side-objects.ts";

/** Answers with a file that was pushed, by the parts of its path; with 404 if there is none. */
export async function sendPushedFile(
  exchange: Exchange,
  sideObjects: SideObjects,
  path: readonly string[],
  headers: Headers,
): Promise<void> {
  const missing = () => new HttpError(404, `There is no "${path.join("/")}" here`);
  const { signal } = exchange;
  const found = await sideObjects.head(path, { signal });
  if (found === undefined) throw missing();
  const { size, version = `${size}` } = found;
  await exchange.sendContent({
    size,
    headers: { ...headers, "x-content-type-options": "nosniff" },
    etag: `"${Buffer.from(version).toString("base64url")}"`,
    async *read(range, signal) {
      const contents = await sideObjects.get(path, { ...range, signal });
      if (contents === undefined) throw missing();
      yield* contents;
    },
  });
}
