import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { type Daemon, embeddedIn, startDaemon, temporaryFolder } from "./harness.ts";
import { describeWithNix } from "./nix-versions.ts";

const KILLS = 2;
const PATHS = 20;

/** Returns a generator of pseudo-random numbers below `limit` with a fixed seed. */
function seeded(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

describeWithNix("a push", (version, open) => {
  it(`leaves nothing half visible through ${KILLS} kills of the daemon, and can be repeated`, async () => {
    using folder = temporaryFolder();
    const nix = open(folder.path);
    const random = seeded(Number(version.replace(".", ""))); // each is killed at other moments
    const trees = join(nix.folder, "trees");
    for (let i = 0; i < PATHS; i++) {
      mkdirSync(join(trees, `tree-${i}`), { recursive: true });
      for (let j = 0; j < 5; j++) {
        const contents = Buffer.alloc(random(30_000), `${i} ${j} ${random(1e9)} `);
        writeFileSync(join(trees, `tree-${i}/${j}`), contents);
      }
    }
    const added = await nix.run("nix-store --init; nix-store --add trees/*");
    const paths = added.trim().split("\n");
    const start = (port: number): Promise<Daemon> =>
      startDaemon([
        ...embeddedIn(folder.path),
        `--listen-address=127.0.0.1:${port}`,
        `--cache-object-addr=sqlite://${folder.path}/objects`,
      ]);
    let daemon = await start(0);
    const [address = ""] = daemon.addresses;
    const url = `http://${address}`;
    const push = `nix copy --to "${url}?compression=xz" ${paths.join(" ")}`;
    const announced = async () => {
      const found: string[] = [];
      for (const path of paths) {
        const hash = path.slice("/nix/store/".length).split("-", 1)[0];
        const { status } = await fetch(`${url}/${hash}.narinfo`);
        expect([200, 404]).toContain(status);
        if (status === 200) found.push(path);
      }
      return found;
    };
    let interrupted = 0;
    try {
      for (let round = 0; round < KILLS; round++) {
        const pushing = nix.run(`rm -rf $NIX_HOME/.cache; ${push} --option download-attempts 1`);
        const failed = pushing.then(
          () => false,
          () => true,
        );
        // After the questions which paths are there: each path then takes three requests.
        const moment = PATHS + random(2 * PATHS);
        let isOver = false;
        void failed.then(() => {
          isOver = true;
        });
        while (!isOver && daemon.log.length < moment) await sleep(1);
        daemon.process.kill("SIGKILL");
        await daemon.exit;
        if (await failed) interrupted += 1;
        daemon = await start(Number(address.split(":")[1]));
        const there = await announced();
        if (there.length === 0) continue;
        await nix.run(`
            rm -rf $NIX_HOME/.cache
            mkdir -p copy-${round}
            nix copy --from ${url} --to $PWD/copy-${round} --no-check-sigs ${there.join(" ")}
            for p in ${there.join(" ")}; do diff -r $p $PWD/copy-${round}$p; done
          `);
      }
      expect(interrupted).toBeGreaterThan(0);
      await nix.run(`rm -rf $NIX_HOME/.cache; ${push}`);
      expect(await announced()).toEqual(paths);
    } finally {
      await daemon[Symbol.asyncDispose]();
    }
  });
});
