import {
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blake3Digest } from "@tvix/castore";
import { seededBytes } from "@tvix/conformance";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DiskCache } from "./disk-cache.ts";

let folder: string;
let warnings: string[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "disk-cache-"));
  warnings = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

const open = (maxBytes = 16 * 1024 * 1024) =>
  DiskCache.open({ folder, maxBytes, onWarning: (message) => warnings.push(message) });
const contentsOf = (name: string, length = 10_000) => {
  const contents = seededBytes(name, length);
  return { digest: blake3Digest(contents), contents };
};
const files = () =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile() && !path.endsWith("CACHEDIR.TAG"));
const bytes = () => files().reduce((sum, path) => sum + statSync(path).size, 0);

test("contents are there after a restart, for several at once", async () => {
  const [one, other] = [contentsOf("one"), contentsOf("other")];
  {
    await using cache = await open();
    cache.put([one]);
  }
  await using cache = await open();
  await using second = await open();
  second.put([other]);
  await second.settled();
  for (const { digest, contents } of [one, other]) {
    expect(Buffer.from((await cache.get(digest, contents.length))!).equals(contents)).toBe(true);
  }
  expect(await cache.get(contentsOf("absent").digest, 10_000)).toBeUndefined();
  expect(warnings).toEqual([]);
});

test("it never has more than its limit, and keeps what was used last", async () => {
  const limit = 2_000_000;
  await using cache = await open(limit);
  const all = Array.from({ length: 600 }, (_, i) => contentsOf(`${i}`));
  for (const [i, one] of all.entries()) {
    cache.put([one]);
    await cache.settled();
    expect(bytes()).toBeLessThanOrEqual(limit);
    const path = join(folder, one.digest.hex[0]!, one.digest.hex.slice(1));
    utimesSync(path, 1_000 + i, 1_000 + i); // as long ago as they were stored
    if (i % 50 === 0) await cache.get(all[0]!.digest, 10_000);
  }
  expect(bytes()).toBeGreaterThan(limit / 2);
  expect(await cache.get(all[0]!.digest, 10_000)).toBeDefined();
  expect(await cache.get(all[1]!.digest, 10_000)).toBeUndefined();
  expect(await cache.get(all.at(-1)!.digest, 10_000)).toBeDefined();
});

test("two that fill one folder stay within their limit together", async () => {
  const limit = 3_200_000;
  const caches = await Promise.all([open(limit), open(limit)]);
  for (let i = 0; i < 400; i++) {
    caches[i % 2]!.put([contentsOf(`both ${i}`)]);
    await caches[i % 2]!.settled();
  }
  expect(bytes()).toBeLessThanOrEqual(limit * 1.1);
});

test("what is damaged is absent, and stored anew", async () => {
  await using cache = await open();
  const one = contentsOf("one");
  for (const damage of [
    (path: string) => truncateSync(path, 9_999),
    (path: string) => writeFileSync(path, contentsOf("something else").contents),
  ]) {
    cache.put([one]);
    await cache.settled();
    damage(files()[0]!);
    expect(await cache.get(one.digest, 10_000)).toBeUndefined();
    expect(files()).toEqual([]);
  }
});

test("what a crash has left is removed once it is old", async () => {
  const one = contentsOf("one");
  await using cache = await open();
  const left = join(folder, one.digest.hex[0]!, "tmp-1-1");
  writeFileSync(left, "half");
  utimesSync(left, 1000, 1000);
  cache.put([one]);
  await cache.settled();
  expect(existsSync(left)).toBe(false);
});

test("a folder that cannot be written any more costs a warning, and a folder of something else is refused", async () => {
  await using cache = await open();
  const [one, other] = [contentsOf("one"), contentsOf("other")];
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
  cache.put([one, other]);
  await cache.settled();
  expect(warnings).toEqual([expect.stringContaining(`Cannot use the cache in "${folder}"`)]);
  expect(await cache.get(one.digest, 10_000)).toBeUndefined();
  writeFileSync(join(folder, "precious"), "");
  await expect(open()).rejects.toMatchObject({
    code: "invalid_argument",
    message: expect.stringContaining('found "precious" in it; name another one'),
  });
});
