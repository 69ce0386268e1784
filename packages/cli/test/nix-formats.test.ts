import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { MemoryBlobService, MemoryDirectoryService } from "@tvix/castore";
import { describeWithTools, seededBytes } from "@tvix/conformance";
import {
  buildCaPath,
  buildOutputPath,
  buildTextPath,
  formatNixHash,
  type HashAlgorithm,
  importPath,
  MemoryPathInfoService,
  nixHash,
  parseAnyNixHash,
  placeholder,
  ReferenceCandidates,
  StorePath,
} from "@tvix/store";
import { afterAll, beforeAll, expect, it } from "vitest";
import { temporaryFolder } from "./harness.ts";

const ALGORITHMS: readonly (readonly [HashAlgorithm, length: number])[] = [
  ["md5", 16],
  ["sha1", 20],
  ["sha256", 32],
  ["sha512", 64],
];

/** Names of every length and character that a store path can have, always the same. */
const NAMES = Array.from({ length: 60 }, (_, i) => {
  const characters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-_?=.";
  // A derivation of four more characters has to fit.
  const letters = [...seededBytes(`name ${i}`, i < 2 ? i * 205 + 1 : (i * 7) % 100)];
  return `n${letters.map((byte) => characters[byte % characters.length]).join("")}`;
});

describeWithTools("what real Nix computes", ["with-nix-root"], (withNixRoot) => {
  let folder: ReturnType<typeof temporaryFolder>;
  beforeAll(() => {
    folder = temporaryFolder();
  });
  afterAll(() => folder[Symbol.dispose]());

  /** Runs a program of Nix, with a store of its own below the folder. */
  function nix(program: string, args: readonly string[]): string {
    const all = [join(folder.path, "nix"), program, ...args];
    return execFileSync(withNixRoot, all, { encoding: "utf8", stdio: "pipe" });
  }

  /** Evaluates an expression; some of its values are written to the store. */
  function evaluate<T>(expression: string): T {
    const args = ["--eval", "--strict", "--json", "--read-write-mode", "-E", expression];
    return JSON.parse(nix("nix-instantiate", args));
  }

  it("are our paths of fixed outputs, by every algorithm, flat and recursive", () => {
    const cases = NAMES.flatMap((name, i) =>
      ALGORITHMS.map(([algorithm, length]) => ({
        name,
        algorithm,
        recursive: i % 2 === 0,
        hash: Buffer.from(seededBytes(`${algorithm} ${i}`, length)).toString("hex"),
      })),
    );
    const expected = evaluate<string[]>(
      `map (c: (derivation {
        inherit (c) name; builder = "b"; system = "s"; outputHash = c.hash; outputHashAlgo = c.algorithm;
        outputHashMode = if c.recursive then "recursive" else "flat";
      }).outPath) (builtins.fromJSON ${JSON.stringify(JSON.stringify(cases))})`,
    );
    const found = cases.map(({ name, algorithm, recursive, hash }) =>
      buildCaPath(name, {
        kind: recursive ? "nar" : "flat",
        hash: parseAnyNixHash(hash, algorithm),
      }).toAbsolutePath(),
    );
    expect(found).toEqual(expected);
  });

  it("are our paths of outputs", () => {
    const cases = NAMES.map((name, i) => ({ name, output: `o${i}` }));
    const expected = evaluate<string[][]>(
      `map (c: let d = derivation {
        inherit (c) name; builder = "b"; system = "s"; outputs = [ "out" c.output ];
      }; in [ d.out.outPath d.\${c.output}.outPath ])
      (builtins.fromJSON ${JSON.stringify(JSON.stringify(cases))})`,
    );
    const found = cases.map(({ name, output }) => {
      const env = Object.entries({
        ...{ builder: "b", name, [output]: "", out: "" },
        ...{ outputs: `out ${output}`, system: "s" },
      }).toSorted(([a], [b]) => (a < b ? -1 : 1));
      const text =
        `Derive([("${output}","","",""),("out","","","")],[],[],"s","b",[],` +
        `[${env.map(([key, value]) => `("${key}","${value}")`).join(",")}])`;
      const hash = createHash("sha256").update(text).digest();
      return ["out", output].map((o) => buildOutputPath(name, hash, o).toAbsolutePath());
    });
    expect(found).toEqual(expected);
  });

  it("are our paths of texts, with and without references", () => {
    const cases = NAMES.map((name, i) => ({ name, text: `text ${i} ` }));
    const expected = evaluate<string[]>(
      `builtins.foldl' (paths: c: paths ++ [ (builtins.toFile c.name
        (c.text + builtins.concatStringsSep "," (builtins.filter (p:
          builtins.stringLength p > 80) paths))) ]) []
      (builtins.fromJSON ${JSON.stringify(JSON.stringify(cases))})`,
    );
    const found: string[] = [];
    for (const { name, text } of cases) {
      const references = found.filter((path) => path.length > 80);
      const path = buildTextPath(name, text + references.join(","), { references });
      found.push(path.toAbsolutePath());
    }
    expect(found).toEqual(expected);
  });

  it("are our placeholders", () => {
    const list = NAMES.map((name) => JSON.stringify(name)).join(" ");
    expect(NAMES.map(placeholder)).toEqual(evaluate(`map builtins.placeholder [ ${list} ]`));
  });

  it.each(ALGORITHMS)("are our forms of hashes by %s", (algorithm, length) => {
    const hashes = Array.from({ length: 50 }, (_, i) =>
      nixHash(algorithm, seededBytes(`${algorithm} ${i}`, length)),
    );
    const hex = hashes.map(({ digest }) => Buffer.from(digest).toString("hex"));
    for (const [form, to] of [
      ["hex", "to-base16"],
      ["nixbase32", "to-base32"],
      ["base64", "to-base64"],
      ["sri", "to-sri"],
    ] as const) {
      const command = ["--extra-experimental-features", "nix-command", "hash", to];
      const lines = nix("nix", [...command, "--type", algorithm, ...hex])
        .trim()
        .split("\n");
      const prefix = form === "sri" ? "" : `${algorithm}:`;
      expect(hashes.map((hash) => formatNixHash(hash, form))).toEqual(
        lines.map((line) => prefix + line),
      );
      for (const [i, line] of lines.entries()) {
        const parsed = parseAnyNixHash(line, algorithm);
        expect(Buffer.from(parsed.digest).toString("hex")).toBe(hex[i]);
      }
    }
  });

  it("are the references that an import finds, for every path that a build leaves", async () => {
    // Outputs that refer to texts, to each other and to themselves: in contents, in names, by symlinks,
    // cut off, and across the borders of large files.
    nix("nix-build", [
      "--no-out-link",
      "-E",
      `let
        sh = name: script: derivation {
          inherit name; builder = "/bin/sh"; args = [ "-c" script ]; system = builtins.currentSystem;
          PATH = "/usr/bin:/bin";
        };
        text = builtins.toFile "text" "no references";
        contents = sh "contents" "echo \${text} > $out";
        itself = sh "itself" "mkdir $out; echo $out > $out/self; ln -s $out/self $out/link";
        link = sh "link" "ln -s \${contents} $out";
        named = sh "named" "mkdir $out; > $out/x$(basename \${text})";
        cut = sh "cut" "echo \${contents} | cut -c 1-42 > $out; echo \${link} | cut -c 14-60 >> $out";
        large = sh "large" ''
          mkdir $out
          for n in 65500 65530 131060 262130; do
            { head -c $n /dev/zero; echo \${named}; head -c 300000 /dev/zero; echo \${cut}; } > $out/$n
          done
        '';
        none = sh "none" "echo \${large} > /dev/null; echo nothing > $out";
      in [ contents itself link named cut large none ]`,
    ]);
    const store = join(folder.path, "nix/store");
    const baseNames = readdirSync(store).filter((name) => !name.startsWith("."));
    const script = `for p in "$@"; do nix-store -q --references "$p" | tr '\\n' ' '; echo; done`;
    const expected = nix("sh", [
      "-c",
      script,
      "sh",
      ...baseNames.map((name) => `/nix/store/${name}`),
    ])
      .split("\n")
      .slice(0, -1)
      .map((line) => line.trim().split(" ").filter(Boolean).toSorted());
    expect(expected.flat().length).toBeGreaterThan(8);

    const services = {
      blobService: new MemoryBlobService(),
      directoryService: new MemoryDirectoryService(),
      pathInfoService: new MemoryPathInfoService(),
    };
    const storePaths = baseNames.map((name) => StorePath.parse(name));
    for (const storePath of storePaths) {
      const plain = await importPath(join(store, `${storePath}`), services, {
        name: storePath.name,
      });
      await services.pathInfoService.put({ ...plain, storePath });
    }
    const references = new ReferenceCandidates(storePaths.map(({ hashPart }) => hashPart));
    for (const [i, storePath] of storePaths.entries()) {
      const path = join(store, `${storePath}`);
      const found = await importPath(path, services, { name: storePath.name, references });
      // The references of a derivation are its inputs, not the store paths in its contents.
      if (!storePath.name.endsWith(".drv")) {
        expect(
          found.references.map((reference) => reference.toAbsolutePath()),
          `${storePath}`,
        ).toEqual(expected[i]);
      }
    }
  }, 120_000);
});
