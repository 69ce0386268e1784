#!/usr/bin/env -S node --max-semi-space-size=2 --heap-growing-percent=30
// By default, V8 lets the heap grow to several times its live size: the command would hold a sixth more memory.
import "../dist/main.js";
