#!/bin/sh
":" //; : "${MALLOC_ARENA_MAX:=1}" "${MALLOC_MMAP_THRESHOLD_:=262144}"
":" //; export MALLOC_ARENA_MAX MALLOC_MMAP_THRESHOLD_
":" //; exec node --max-semi-space-size=1 "$0" "$@"
// For the shell, the lines above are commands, which have Node.js read this file; for Node.js, they are comments. They set options
// that glibc and V8 read only at start: otherwise glibc keeps an arena for each thread, with the memory of buffers that were freed,
// and V8 up to 16 MB for new objects in each thread. An import would take 20 MB more, a daemon with a thousand clients 40.

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 24 || (major === 24 && minor < 12)) {
  console.error(
    `tvix-store: Cannot run on Node.js ${process.versions.node}: expected 24.12 or later; put a newer "node" first on PATH`,
  );
  process.exit(1);
}
require("../dist/main.cjs");
