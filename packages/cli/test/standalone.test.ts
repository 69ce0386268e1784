import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { temporaryFolder } from "./harness.ts";

const packages = fileURLToPath(new URL("../..", import.meta.url));

const { packageManager } = JSON.parse(readFileSync(join(packages, "../package.json"), "utf8"));

/** The first program in the README of a package. */
function readmeProgram(name: string): string {
  const readme = readFileSync(join(packages, name, "README.md"), "utf8");
  const program = /^```js\n(.*?)^```$/ms.exec(readme)?.[1];
  if (program === undefined) throw new Error(`no program in the README of ${name}`);
  return program;
}

it("@tvix/castore runs the program of its README, packed and installed outside the workspace", () => {
  using folder = temporaryFolder();
  const run = (cwd: string, command: string, ...args: string[]) =>
    execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });

  for (const name of ["proto", "castore"]) {
    const pack = ["--yes", packageManager, "pack", "--pack-destination", folder.path];
    run(join(packages, name), "npx", ...pack);
  }
  const tarball = (name: string) => {
    const file = readdirSync(folder.path).find((file) => file.startsWith(`tvix-${name}-`))!;
    return `file:${join(folder.path, file)}`;
  };
  const manifest = {
    name: "outside",
    private: true,
    type: "module",
    dependencies: { "@tvix/castore": tarball("castore"), "@tvix/proto": tarball("proto") },
    overrides: { "@tvix/proto": "$@tvix/proto" }, // that of castore too, which is not published yet
  };
  writeFileSync(join(folder.path, "package.json"), JSON.stringify(manifest));
  writeFileSync(join(folder.path, "program.js"), readmeProgram("castore"));
  run(folder.path, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts");

  expect(run(folder.path, process.execPath, "program.js")).toMatch(/^b3:\S+: Hello, world!\n/);
  expect(existsSync(join(folder.path, "node_modules/@tvix/store"))).toBe(false);
}, 300_000);
