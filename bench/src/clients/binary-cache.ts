/**
 * Loads a binary cache on a port of this machine, with the only store path in a PathInfo service.
 *
 *   binary-cache.ts PORT PATH_INFOS narinfo|nar|nar.zst|announced
 *
 * `announced` is the NAR where the narinfo says that it is.
 */
import { execFileSync } from "node:child_process";
import { encodeNixbase32, openPathInfoService } from "@tvix/store";
import { onlyPathInfo } from "./only-path-info.ts";
import { reportWork } from "./report-work.ts";

const CONNECTIONS = 16;
const SECONDS = 3;

const [port, pathInfos, what] = process.argv.slice(2) as [string, string, string];
await using service = await openPathInfoService(pathInfos);
const { storePath, narSha256, narSize } = await onlyPathInfo(service);
const hash = encodeNixbase32(storePath.hashPart);
const url = `http://127.0.0.1:${port}`;
if (what === "narinfo") {
  const load = ["-t1", `-c${CONNECTIONS}`, `-d${SECONDS}`, `${url}/${hash}.narinfo`];
  const report = execFileSync("wrk", load, { encoding: "utf8" });
  const [, count, seconds] = /(\d+) requests in ([\d.]+)s/.exec(report) ?? [];
  if (report.includes("Non-2xx") || !count) throw new Error(`Cannot use this run: ${report}`);
  reportWork({ seconds: Number(seconds), count: Number(count) });
} else {
  const nar =
    what === "announced"
      ? `${url}/${await announcedUrl()}`
      : `${url}/nar/${encodeNixbase32(narSha256)}.${what}?hash=${hash}`;
  const options = ["--silent", "--fail", "--output", "/dev/null", "--write-out", "%{time_total}"];
  const seconds = execFileSync("curl", [...options, nar], { encoding: "utf8" });
  reportWork({ seconds: Number(seconds), bytes: Number(narSize) }); // bytes of the NAR, however it comes
}

async function announcedUrl(): Promise<string> {
  const narInfo = await (await fetch(`${url}/${hash}.narinfo`)).text();
  const [, found] = /^URL: (.*)$/m.exec(narInfo) ?? [];
  if (found === undefined) throw new Error(`Cannot use this run: ${narInfo}`);
  return found;
}
