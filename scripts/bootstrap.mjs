// What `npm start` and `npm test` run, on any Node from 20 on: installs what the lockfile says, with
// the pnpm that package.json pins and without installing anything globally, then runs a pnpm command,
// whose scripts find the pinned Node first on their PATH.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";

const root = new URL("..", import.meta.url);
const { packageManager } = JSON.parse(readFileSync(new URL("package.json", root), "utf8"));

/** Runs a command to its end and gives its exit status; a signal is passed on to it. */
function run(command, args) {
  const child = spawn(command, args, { cwd: root, stdio: "inherit" });
  const forward = (signal) => child.kill(signal);
  process.on("SIGTERM", forward).on("SIGINT", () => {}); // a terminal sends SIGINT to both
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      process.removeListener("SIGTERM", forward);
      resolve(code ?? (signal === "SIGINT" ? 130 : 143));
    });
  });
}

const pnpm = (...args) => run("npx", ["--yes", packageManager, ...args]);

const installed = await pnpm("install", "--frozen-lockfile", "--reporter=append-only");
process.exitCode = installed || (await pnpm(...process.argv.slice(2)));
