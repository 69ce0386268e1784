// Regenerates everything that is generated and committed, elsewhere, and compares the bytes.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const COMMITTED = "packages/proto/src/gen";

const folder = mkdtempSync(join(tmpdir(), "check-generated-"));
try {
  execFileSync("buf", ["generate", "--output", folder], { stdio: "inherit" });
  const expected = readFolder(join(folder, COMMITTED));
  const found = readFolder(COMMITTED);
  for (const name of new Set([...expected.keys(), ...found.keys()])) {
    if (expected.get(name) === found.get(name)) continue;
    console.error(`${COMMITTED}/${name} is not what buf generates: run "pnpm generate"`);
    process.exitCode = 1;
  }
} finally {
  rmSync(folder, { recursive: true });
}
execFileSync("node", ["packages/castore/scripts/build-kernel.ts", "--check"], { stdio: "inherit" });

function readFolder(root: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(path.slice(root.length + 1), readFileSync(path, "utf8"));
  }
  return files;
}
