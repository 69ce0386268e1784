/**
 * How blobs are cut is no business of users of @tvix/castore, which therefore does not export it. The
 * price of cutting is one of the things measured here, so it is taken from the source.
 */
export { Chunker } from "../../packages/castore/src/chunking/chunker.ts";
