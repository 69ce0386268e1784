import { describe, expect, it } from "vitest";
import type { B3Digest } from "../model/digest.ts";
import { Directory } from "../model/directory.ts";
import { pathComponent } from "../model/path.ts";
import { encodeDirectory } from "./encoded-directory.ts";
import { StagedTree, type TreeStage } from "./staged-tree.ts";

function parentOf(directory: Directory): Directory {
  const { digest } = encodeDirectory(directory);
  const node = { type: "directory", digest, size: directory.size } as const;
  return Directory.from([{ name: pathComponent("below"), node }]);
}

const LEAF = Directory.from([]);
const ROOT = parentOf(LEAF);
const digestOf = (directory: Directory): B3Digest => encodeDirectory(directory).digest;
const ended = { code: "invalid_argument" };

/** A stage that records what is asked of it, in order, and fails where it is told to. */
function recordingStage(failing: Partial<Record<keyof TreeStage, Error>> = {}) {
  const calls: string[] = [];
  const signals: (AbortSignal | undefined)[] = [];
  const record = async (call: keyof TreeStage, what: string) => {
    calls.push(what);
    await Promise.resolve();
    const error = failing[call];
    if (error !== undefined) throw error;
  };
  const stage: TreeStage = {
    add: ({ directory }) => record("add", directory === LEAF ? "add leaf" : "add root"),
    commit: (options) => {
      signals.push(options?.signal);
      return record("commit", "commit");
    },
    discard: () => record("discard", "discard"),
  };
  return { stage, calls, signals };
}

describe("StagedTree", () => {
  it("stages each directory once, commits, and releases, in that order", async () => {
    const { stage, calls } = recordingStage();
    await using tree = new StagedTree(stage);
    for (const directory of [LEAF, LEAF, ROOT, ROOT]) await tree.put(directory);
    expect(await tree.close()).toEqual(digestOf(ROOT));
    expect(calls).toEqual(["add leaf", "add root", "commit", "discard"]);
  });

  it("commits and releases once, however often it is closed and disposed of", async () => {
    const { stage, calls } = recordingStage();
    const tree = new StagedTree(stage);
    await tree.put(LEAF);
    const digests = await Promise.all([tree.close(), tree.close()]);
    await tree[Symbol.asyncDispose]();
    await tree[Symbol.asyncDispose]();
    expect(digests).toEqual([digestOf(LEAF), digestOf(LEAF)]);
    expect(await tree.close()).toEqual(digestOf(LEAF));
    expect(calls).toEqual(["add leaf", "commit", "discard"]);
  });

  it("releases without a commit when it is disposed of before it was closed", async () => {
    const { stage, calls } = recordingStage();
    const tree = new StagedTree(stage);
    await tree.put(LEAF);
    await tree[Symbol.asyncDispose]();
    expect(calls).toEqual(["add leaf", "discard"]);
    await expect(tree.close()).rejects.toMatchObject(ended);
    expect(calls).toEqual(["add leaf", "discard"]);
  });

  it("waits for a commit under way before it releases", async () => {
    let commit = () => {};
    const committing = new Promise<void>((resolve) => {
      commit = resolve;
    });
    const { stage, calls } = recordingStage();
    const tree = new StagedTree({
      ...stage,
      async commit() {
        await committing;
        calls.push("committed");
      },
    });
    await tree.put(LEAF);
    const closing = tree.close();
    const disposing = tree[Symbol.asyncDispose]();
    await new Promise(setImmediate);
    expect(calls).toEqual(["add leaf"]);
    commit();
    await disposing;
    await closing;
    expect(calls).toEqual(["add leaf", "committed", "discard"]);
  });

  it("passes on that staging failed, releases at once, and takes nothing more", async () => {
    const error = new Error("no room");
    const { stage, calls } = recordingStage({ add: error });
    await using tree = new StagedTree(stage);
    await expect(tree.put(LEAF)).rejects.toBe(error);
    expect(calls).toEqual(["add leaf", "discard"]);
    await expect(tree.put(LEAF)).rejects.toMatchObject(ended);
    await expect(tree.close()).rejects.toMatchObject(ended);
    expect(calls).toEqual(["add leaf", "discard"]);
  });

  it("passes on that the commit failed, each time it is closed, and releases", async () => {
    const error = new Error("no room");
    const { stage, calls } = recordingStage({ commit: error });
    await using tree = new StagedTree(stage);
    await tree.put(LEAF);
    await expect(tree.close()).rejects.toBe(error);
    await expect(tree.close()).rejects.toBe(error);
    await expect(tree.put(ROOT)).rejects.toMatchObject(ended);
    expect(calls).toEqual(["add leaf", "commit", "discard"]);
  });

  it.each([
    ["refers to a directory that did not come", [ROOT]],
    ["is empty", []],
    ["has a directory that cannot be reached", [LEAF, ROOT, LEAF]],
  ])("commits nothing of a tree that %s", async (_, directories) => {
    const { stage, calls } = recordingStage();
    await using tree = new StagedTree(stage);
    const storing = async () => {
      for (const directory of directories) await tree.put(directory);
      await tree.close();
    };
    await expect(storing()).rejects.toMatchObject({ code: "invalid_argument" });
    expect(calls).not.toContain("commit");
    expect(calls.filter((call) => call === "discard").length).toBe(1);
  });

  it("rejects with the reason once it is cancelled, and commits nothing", async () => {
    const reason = new Error("enough");
    for (const step of ["put", "close"] as const) {
      const controller = new AbortController();
      const { stage, calls } = recordingStage();
      await using tree = new StagedTree(stage, { signal: controller.signal });
      await tree.put(LEAF);
      controller.abort(reason);
      await expect(step === "put" ? tree.put(ROOT) : tree.close()).rejects.toBe(reason);
      expect(calls).toEqual(["add leaf", "discard"]);
    }
  });

  it("hands its signal to the commit", async () => {
    const { signal } = new AbortController();
    const { stage, signals } = recordingStage();
    await using tree = new StagedTree(stage, { signal });
    await tree.put(LEAF);
    await tree.close();
    expect(signals).toEqual([signal]);
  });
});
