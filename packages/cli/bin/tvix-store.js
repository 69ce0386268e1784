#!/usr/bin/env -S node --max-semi-space-size=2
// By default, V8 lets the space for new objects grow to 16 MB, in each thread.

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 24 || (major === 24 && minor < 12)) {
  console.error(
    `tvix-store: Cannot run on Node.js ${process.versions.node}: expected 24.12 or later; put a newer "node" first on PATH`,
  );
  process.exit(1);
}
await import("../dist/main.js");
