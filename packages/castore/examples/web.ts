/**
 * Reads a blob that a web server has, which serves the folder of a store of files, or a bucket.
 *
 *   node examples/web.ts https://example.org/store DIGEST
 */
import { B3Digest, openBlobService } from "@tvix/castore";

const [store, hex] = process.argv.slice(2) as [string, string];
await using blobService = await openBlobService(`objectstore+${store}`);
const digest = B3Digest.fromBytes(Buffer.from(hex, "hex"));
for await (const data of (await blobService.read(digest)) ?? []) process.stdout.write(data);
