import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pLimit from "p-limit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { embeddedIn, temporaryFolder, throughDaemon, tvixStore } from "./harness.ts";
import { MISTAKE_KINDS, type Mistake, mistakesIn } from "./mistakes.ts";
import { canBeOther, missingOther, OTHER_UID } from "./other-user.ts";

const folder = temporaryFolder();
const at = (name: string) => join(folder.path, name);
afterAll(() => folder[Symbol.dispose]());

describe("a mistake in", () => {
  let mistakes: ReturnType<typeof mistakesIn>;
  beforeAll(async () => {
    for (const name of ["tree", "store"]) mkdirSync(at(name));
    writeFileSync(at("tree/text"), "text");
    symlinkSync("text", at("tree/link"));
    writeFileSync(at("file"), "file");
    const { stdout } = await tvixStore(["import", at("tree"), ...embeddedIn(at("store"))]);
    mistakes = mistakesIn(folder.path, stdout.trim());
  });

  it.each(MISTAKE_KINDS)("%s is answered in a line that says what was expected", async (kind) => {
    const check = async ({ args, answers, status = 1, env = {} }: Mistake) => {
      const outcome = await tvixStore(args, {
        cwd: folder.path,
        env: { NIX_ATTRS_JSON_FILE: undefined, ...env },
      });
      expect({ args, ...outcome }).toMatchObject({ args, status, stdout: "" });
      const lines = outcome.stderr.split(/\n(?=tvix-store: |$)/).slice(0, -1);
      const expected = answers.map((answer) => expect.stringContaining(answer));
      expect({ args, lines }).toEqual({ args, lines: expected });
      for (const line of lines) expect(line).toMatch(/^tvix-store: [^\n]*(\n\([^\n]*\))?$/);
    };
    const atOnce = pLimit(3);
    await Promise.all(mistakes[kind].map((one) => atOnce(check, one)));
  });

  it.skipIf(!canBeOther)(
    `what may not be read is named, and the others are stored${missingOther}`,
    async () => {
      chmodSync(folder.path, 0o755);
      const [secret, open] = ["secret", "open"].map((name) => join(folder.path, name));
      writeFileSync(secret!, "", { mode: 0o600 });
      writeFileSync(open!, "");
      const args = ["import", secret!, open!, ...throughDaemon("memory://")];
      const outcome = await tvixStore(args, { uid: OTHER_UID, env: { HOME: folder.path } });
      expect(outcome).toMatchObject({ status: 1, stdout: expect.stringMatching(/^\S+-open\n$/) });
      expect(outcome.stderr).toMatch(
        /^tvix-store: .*secret": permission denied\n.*1 of 2 paths failed\n$/,
      );
    },
  );
});
