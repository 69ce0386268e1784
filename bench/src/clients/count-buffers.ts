import { setFlagsFromString } from "node:v8";

/**
 * Has V8 count buffers as it counts objects, as the README of castore advises to programs that read much from a server: by default,
 * it collects all of the heap for every few megabytes that come from a socket.
 */
export function countBuffers(): void {
  setFlagsFromString("--external-memory-accounted-in-global-limit");
}
