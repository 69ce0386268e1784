#!/usr/bin/env node
import { enableCompileCache } from "node:module";
import { cacheFolder } from "./user-folders.ts";

// Enabled before any other module is loaded, the compile cache halves the time that a command takes to start. It holds
// code to run, so it belongs in a folder of this user.
const cache = cacheFolder();
if (cache !== undefined) {
  enableCompileCache(cache);
  process.env.NODE_COMPILE_CACHE ??= cache; // for worker threads
}

const { runProgram } = await import("./program.ts");
await runProgram();
