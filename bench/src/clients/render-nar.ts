/**
 * Renders the NAR of the only store path in stores, to nowhere.
 *
 *   render-nar.ts BLOBS DIRECTORIES PATH_INFOS
 */
import { openBlobService, openDirectoryService } from "@tvix/castore";
import { openPathInfoService, renderNar } from "@tvix/store";
import { onlyPathInfo } from "./only-path-info.ts";
import { reportWork, secondsOf } from "./report-work.ts";

const [blobs, directories, pathInfos] = process.argv.slice(2) as [string, string, string];
await using blobService = await openBlobService(blobs);
await using directoryService = await openDirectoryService(directories);
await using pathInfoService = await openPathInfoService(pathInfos);
const { node, narSize } = await onlyPathInfo(pathInfoService);

let bytes = 0;
const seconds = await secondsOf(async () => {
  for await (const data of renderNar(node, { blobService, directoryService })) bytes += data.length;
});
if (BigInt(bytes) !== narSize) {
  throw new Error(`Cannot use this run: rendered ${bytes} bytes, expected ${narSize}`);
}
reportWork({ seconds, bytes });
