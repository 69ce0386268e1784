/**
 * Converts between PathInfos and narinfos. A narinfo lacks the root node, a PathInfo lacks the location of the NAR.
 */
import type { Node } from "@tvix/castore";
import { NarInfo, type NarInfoFields } from "./nix/narinfo.ts";
import type { PathInfo } from "./pathinfo.ts";

/**
 * Makes the narinfo of a PathInfo.
 *
 * @param nar URL and compression of the NAR, and hash and length of the compressed NAR if they are known
 * @throws StoreError `invalid_argument` for a URL or compression with spaces or control characters, and for a NAR
 *   size of zero
 */
export function narInfoFromPathInfo(
  pathInfo: PathInfo,
  nar: Pick<NarInfoFields, "url" | "compression" | "fileHash" | "fileSize">,
): NarInfo {
  const { storePath, references, narSize, narSha256, signatures, deriver, ca } = pathInfo;
  const { url, compression, fileHash, fileSize } = nar;
  return NarInfo.from({
    ...{ storePath, url, compression, fileHash, fileSize, narSha256, narSize },
    ...{ references, deriver, signatures, ca },
  });
}

/**
 * Makes the PathInfo of a narinfo. Signatures are copied without verifying them, see {@link VerifyingKey.verify}.
 *
 * @param node the root node, whose NAR has the hash and size of the narinfo
 */
export function pathInfoFromNarInfo(narInfo: NarInfo, node: Node): PathInfo {
  const { storePath, references, narSize, narSha256, signatures, deriver, ca } = narInfo;
  return {
    ...{ storePath, node, references, narSize, narSha256, signatures },
    ...(deriver && { deriver }),
    ...(ca && { ca }),
  };
}
