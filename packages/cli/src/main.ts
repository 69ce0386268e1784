#!/usr/bin/env node
import { enableCompileCache } from "node:module";
import { cacheFolder } from "./user-folders.ts";

// Before anything else is loaded: it halves the time that a command takes to start. The cache holds code to run, so it is
// in a folder that only this user can write to.
const cache = cacheFolder();
if (cache !== undefined) {
  enableCompileCache(cache);
  process.env.NODE_COMPILE_CACHE ??= cache; // for threads
}

const { runProgram } = await import("./program.ts");
await runProgram();
