/**
 * Where PathInfos and narinfos meet. They tell the same, but a narinfo does not have the contents, and a
 * PathInfo not where a NAR is.
 */
import type { Node } from "@tvix/castore";
import { NarInfo, type NarInfoFields } from "./nix/narinfo.ts";
import type { PathInfo } from "./pathinfo.ts";

/**
 * The narinfo of a PathInfo.
 *
 * @param nar where its NAR is, how it is compressed (`none` where it is not), and hash and length of the
 *   compressed NAR, where they are known
 * @throws StoreError `invalid_argument` for a URL or compression with spaces or control characters, and sizes
 *   that are none
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
 * The PathInfo of a narinfo. Its signatures are taken over as they are, see {@link VerifyingKey.verify}.
 *
 * @param node the contents, whose NAR has the hash and size that the narinfo tells
 */
export function pathInfoFromNarInfo(narInfo: NarInfo, node: Node): PathInfo {
  const { storePath, references, narSize, narSha256, signatures, deriver, ca } = narInfo;
  return {
    ...{ storePath, node, references, narSize, narSha256, signatures },
    ...(deriver && { deriver }),
    ...(ca && { ca }),
  };
}
