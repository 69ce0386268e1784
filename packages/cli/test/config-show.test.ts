import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { temporaryFolder, tvixStore } from "./harness.ts";

it("config show tells values and where they come from: an argument, a variable, the file, a default", async () => {
  using folder = temporaryFolder();
  const config = join(folder.path, "config.toml");
  const text = [
    'log-level = "warn"',
    'listen-address = ["file:1"]',
    "[daemon]",
    "cache-priority = 7",
    'blob-service-addr = "combined://?near=pack:///x&far=objectstore+s3://b?secret_access_key=hunter2"',
  ];
  writeFileSync(config, text.join("\n"));
  const env = {
    ...{ LISTEN_ADDRESS: "variable:1", UPSTREAM: "https://user:hunter2@host/?token=hunter2" },
    LOG_LEVEL: undefined,
  };
  const args = ["--config", config, "daemon", "--cache-priority", "8"];
  const json = await tvixStore(["config", "show", "--json", ...args], { env });
  expect(json).toMatchObject({ status: 0, stderr: "" });
  expect(JSON.parse(json.stdout).daemon).toMatchObject({
    "cache-priority": { value: 8, source: "flag" },
    "listen-address": { value: ["variable:1"], source: "environment", from: "LISTEN_ADDRESS" },
    "log-level": { value: "warn", source: "file", from: config },
    "body-timeout": { value: "2m", source: "default" },
    "auth-file": { value: null, source: "none" },
    "blob-service-addr": {
      value: "combined://?near=pack:///x&far=objectstore+s3://b?secret_access_key=***",
      source: "file",
    },
    upstream: { value: ["https://***@host/?token=***"] },
  });
  const shown = await tvixStore(["config", "show", "--config", config], { env });
  expect(shown.stdout).toMatch(
    /^daemon\n {2}listen-address +variable:1 +environment LISTEN_ADDRESS\n/,
  );
  expect(shown.stdout).toMatch(/^import\n(?: {2}.*\n)+/m);
  expect(shown.stdout).not.toContain("hunter2");
  const wrong = await tvixStore(["config", "show", "deamon"]);
  expect(wrong).toMatchObject({ status: 1, stdout: "" });
  expect(wrong.stderr).toContain('did you mean "daemon"?');
});
