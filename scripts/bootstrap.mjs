// What `npm start` and `npm test` run first, on any Node from 20 on: installs what the lockfile says, with
// the pnpm that package.json pins and without installing anything globally, and builds the command. With
// arguments, then runs a pnpm command, whose scripts find the pinned Node first on their PATH.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

const root = new URL("..", import.meta.url);
const { packageManager } = JSON.parse(readFileSync(new URL("package.json", root), "utf8"));

/** Runs pnpm to its end and gives its exit status. */
function pnpm(...args) {
  const { status, error } = spawnSync(
    "npx",
    ["--yes", "--prefer-offline", packageManager, ...args],
    {
      cwd: root,
      stdio: "inherit",
    },
  );
  if (error) throw error;
  return status ?? 1;
}

const command = process.argv.slice(2);
process.exitCode = pnpm("install", "--frozen-lockfile", "--reporter=append-only");
if (process.exitCode === 0)
  process.exitCode = pnpm("--silent", "--filter=@tvix/cli", "run", "build");
if (process.exitCode === 0 && command.length > 0) process.exitCode = pnpm(...command);
