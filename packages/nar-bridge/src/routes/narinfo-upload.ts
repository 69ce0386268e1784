import { type AbortOptions, equalBytes } from "@tvix/castore";
import { encodeNixbase32, NarInfo, pathInfoFromNarInfo } from "@tvix/store";
import type { BridgeContext } from "../context.ts";
import { indexDebugInfo } from "../debug-info-index.ts";
import { HttpError } from "../http-error.ts";
import type { PushedNar } from "../pushed-nar.ts";
import type { Router } from "../router.ts";
import { isLost } from "../stored-nars.ts";
import { parseNarName } from "../upload/nar-name.ts";
import { wholeBody } from "../upload/request-body.ts";

/** Longest narinfo, in bytes: some ten thousand references. */
const MAX_NARINFO_BYTES = 1024 * 1024;

/** The compression that Nix takes for granted where a narinfo names none. */
const DEFAULT_COMPRESSION = "bzip2";

/** Takes `PUT /<hash>.narinfo`, which describes a store path whose NAR was pushed before. */
export function narInfoUploadRoutes(router: Router, context: BridgeContext): void {
  const { pathInfoService, sideObjects, uploads, nars, narInfos, signer, storeDir } = context;

  /** Finds the NAR that a narinfo names, which has to be whole. */
  const findNar = async (url: string, signal: AbortSignal) => {
    const fileName = parseNarName(/^nar\/(.*)$/.exec(url)?.[1] ?? "")?.text;
    const nar = fileName && (await uploads.get(fileName, { signal }));
    if (!nar) return undefined;
    try {
      await nars.open(nar.node, signal);
      return { fileName, nar };
    } catch (error) {
      if (isLost(error)) return undefined;
      throw error;
    }
  };

  const findMissing = async ({ storePath, references }: NarInfo, options: AbortOptions) => {
    const others = references.filter((reference) => `${reference}` !== `${storePath}`);
    const hashParts = others.map(({ hashPart }) => hashPart);
    const found = await pathInfoService.getMany(hashParts, options);
    return others.find((_, i) => found[i] === undefined);
  };

  router.put("/:hash.narinfo", async (exchange, { hash = "" }) => {
    const { signal } = exchange;
    const name = `"${hash}.narinfo"`;
    const refuse = (status: number, reason: string) =>
      new HttpError(status, `Cannot store ${name}: ${reason}`);
    const text = await wholeBody(exchange, { name, maxBytes: MAX_NARINFO_BYTES });
    const narInfo = NarInfo.parse(text.toString(), { storeDir });
    if (encodeNixbase32(narInfo.storePath.hashPart) !== hash) {
      throw refuse(400, `expected another store path, found "${narInfo.storePath}"`);
    }
    const found = await findNar(narInfo.url, signal);
    if (found === undefined) {
      throw refuse(409, `expected the NAR "${narInfo.url}" to be uploaded before, found none`);
    }
    const wrong = mismatch(narInfo, found.nar);
    if (wrong !== undefined) throw refuse(400, wrong);
    const missing = await findMissing(narInfo, { signal });
    if (missing !== undefined) {
      throw refuse(409, `expected the reference "${missing}" to be pushed before, found none`);
    }
    const pathInfo = pathInfoFromNarInfo(narInfo, found.nar.node);
    // Until both are durable, the NAR is found as an upload.
    await Promise.all([
      sideObjects.putNar(found.fileName, found.nar, hash, { signal }),
      pathInfoService.put(signer.whenStored(pathInfo), { signal }),
      indexDebugInfo(found.nar.node, narInfo.url, context, { signal }),
    ]);
    narInfos.delete(hash);
    exchange.created();
    sideObjects.deleteUpload(found.fileName);
  });
}

/** Returns what a narinfo tells of its NAR that is not so; `undefined` if all of it is. */
function mismatch(narInfo: NarInfo, nar: PushedNar): string | undefined {
  const { compression = DEFAULT_COMPRESSION, fileHash } = narInfo;
  const differ = (field: string, expected: unknown, found: unknown) =>
    `expected ${field} ${expected}, found ${found}`;
  const hash = (digest: Uint8Array) => `sha256:${encodeNixbase32(digest)}`;
  if (!equalBytes(narInfo.narSha256, nar.narSha256)) {
    return differ("NarHash", hash(nar.narSha256), hash(narInfo.narSha256));
  }
  if (narInfo.narSize !== nar.narSize) return differ("NarSize", nar.narSize, narInfo.narSize);
  if (compression !== nar.compression) return differ("Compression", nar.compression, compression);
  if (narInfo.fileSize !== undefined && narInfo.fileSize !== nar.fileSize) {
    return differ("FileSize", nar.fileSize, narInfo.fileSize);
  }
  if (fileHash?.algorithm === "sha256" && !equalBytes(fileHash.digest, nar.fileSha256)) {
    return differ("FileHash", hash(nar.fileSha256), hash(fileHash.digest));
  }
  return undefined;
}
