#!/usr/bin/env -S node --max-semi-space-size=2 --heap-growing-percent=30
// By default, V8 lets the heap grow to several times its live size: the command would hold a sixth more memory.

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 24 || (major === 24 && minor < 12)) {
  console.error(
    `tvix-store: Cannot run on Node.js ${process.versions.node}: expected 24.12 or later; put a newer "node" first on PATH`,
  );
  process.exit(1);
}
await import("../dist/main.js");
