/**
 * Lists the PathInfos of a service.
 *
 *   list.ts ADDRESS
 */
import { openPathInfoService } from "@tvix/store";
import { reportWork, secondsOf } from "./report-work.ts";

const [address] = process.argv.slice(2) as [string];
await using service = await openPathInfoService(address);
let count = 0;
const seconds = await secondsOf(async () => {
  for await (const _ of service.list()) count += 1;
});
reportWork({ seconds, count });
