import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Daemon, embeddedIn, startServing, temporaryFolder, tvixStore } from "./harness.ts";
import { shell } from "./mounted.ts";

const GUEST: string = join(import.meta.dirname, "virtiofs-guest.py");

describeWithTools("virtiofs", ["python3", "sha256sum"], () => {
  const folder = temporaryFolder();
  const socket = join(folder.path, "socket");
  const contents = seededBytes("virtiofs", 3_000_000);
  const sum = createHash("sha256").update(contents).digest("hex");
  let serving: Daemon;
  let name: string;

  beforeAll(async () => {
    const store = embeddedIn(join(folder.path, "store"));
    const tree = join(folder.path, "tree");
    mkdirSync(tree);
    writeFileSync(join(tree, "file"), contents);
    const { stdout } = await tvixStore(["import", tree, ...store]);
    name = stdout.trim().replace("/nix/store/", "");
    serving = await startServing(["virtiofs", ...store, socket], { message: "listening" });
  });
  afterAll(async () => {
    await serving?.[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const readFile = () => shell('python3 "$1" "$2" well "$3" file | sha256sum', GUEST, socket, name);

  it("shows files to what speaks vhost-user, also to several at once", async () => {
    const found = await Promise.all([readFile(), readFile()]);
    expect(found).toEqual([`${sum}  -\n`, `${sum}  -\n`]);
  });

  /** Returns how many events and pieces of memory the server has open. */
  const countOpened = async () => {
    const script = "ls -l /proc/$1/fd | grep -cE 'eventfd|memfd' || true";
    return Number(await shell(script, String(serving.process.pid)));
  };

  it("survives guests and peers that break the protocol, and serves others then", async () => {
    const before = await countOpened();
    expect(await shell('python3 "$1" "$2" badly', GUEST, socket)).toBe("done\n");
    expect(await readFile()).toContain(sum);
    const messages = serving.log.map(({ msg }) => String(msg));
    for (const reason of [
      "found a loop",
      "found none there",
      "expected 1 descriptors in message 12, found 0",
    ]) {
      expect(messages).toContainEqual(expect.stringContaining(reason));
    }
    expect(messages).not.toContainEqual(expect.stringContaining("EBADF"));
    await expect.poll(countOpened, { timeout: 10_000 }).toBeLessThanOrEqual(before);
  });
});
