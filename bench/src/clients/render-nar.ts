/**
 * Renders the NAR of the only store path in stores, to a file or to nowhere.
 *
 *   render-nar.ts BLOBS DIRECTORIES PATH_INFOS [NAR]
 */
import { open } from "node:fs/promises";
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { openPathInfoService, renderNar } from "@tvix/store";
import { onlyPathInfo } from "./only-path-info.ts";
import { reportWork, secondsOf } from "./report-work.ts";

const [blobs, directories, pathInfos, nar] = process.argv.slice(2) as [
  string,
  string,
  string,
  string | undefined,
];
await using blobService = await openBlobService(blobs);
await using directoryService = await openDirectoryService(directories);
await using pathInfoService = await openPathInfoService(pathInfos);
const { node, narSize } = await onlyPathInfo(pathInfoService);

await using file = nar === undefined ? undefined : await open(nar, "wx");
let bytes = 0;
const seconds = await secondsOf(async () => {
  for await (const data of renderNar(node, { blobService, directoryService })) {
    bytes += data.length;
    await file?.writeFile(data);
  }
});
if (BigInt(bytes) !== narSize) {
  throw new Error(`Cannot use this run: rendered ${bytes} bytes, expected ${narSize}`);
}
reportWork({ seconds, bytes });
