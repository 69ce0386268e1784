import type { AbortOptions } from "../bytes/abort-options.ts";
import type { DirectoryPutter, DirectoryService } from "../directoryservice/directory-service.ts";
import { encodeDirectory } from "../directoryservice/encoded-directory.ts";
import { B3Digest } from "../model/digest.ts";
import { Directory } from "../model/directory.ts";
import { DirectoryEncoder } from "../model/directory-encoder.ts";
import type { Node, SymlinkTarget } from "../model/node.ts";
import type { PathComponent } from "../model/path.ts";

/** A folder whose entries are being added. */
interface OpenFolder {
  /** Its name in the folder above; `undefined` for the root. */
  readonly name: PathComponent | undefined;
  readonly entries: DirectoryEncoder;
}

/** A directory that waits to be stored. */
interface PendingDirectory {
  readonly directory: Directory;
  /** Resolves when the contents of its files, and of all before them, are durable. */
  readonly stored: Promise<unknown>;
}

/** How many directories wait before the tree is held up. */
const MAX_PENDING = 1024;

/**
 * Builds the directories of a tree that comes in canonical order, and stores each once the contents of its files are
 * durable. None becomes visible before {@link finish}.
 *
 * An entry is named by the folder that it is in; the root has no name. The caller guarantees order and names.
 */
export class TreeBuilder implements AsyncDisposable {
  readonly #directoryService: DirectoryService;
  readonly #options: AbortOptions | undefined;
  readonly #stack: OpenFolder[] = [];
  readonly #pending: PendingDirectory[] = [];
  #stored: Promise<unknown> = Promise.resolve();
  #putter: DirectoryPutter | undefined;
  #pumping: Promise<void> | undefined;
  #root: Node | undefined;
  #failure: { readonly reason: unknown } | undefined;

  constructor(directoryService: DirectoryService, options?: AbortOptions) {
    this.#directoryService = directoryService;
    this.#options = options;
  }

  enterDirectory(name: PathComponent | undefined): void {
    this.#stack.push({ name, entries: new DirectoryEncoder() });
  }

  leaveDirectory(): void {
    const { name, entries } = this.#stack.pop()!;
    const directory = Directory.from(entries);
    const encoded = encodeDirectory(directory);
    this.#pending.push({ directory: directory.withEncoding(encoded), stored: this.#stored });
    this.#pumping ??= this.#pump();
    this.#add(name, { type: "directory", digest: encoded.digest, size: directory.size });
  }

  /** @param digest BLAKE3 of the contents, 32 bytes */
  file(
    name: PathComponent | undefined,
    digest: Uint8Array,
    size: number,
    isExecutable: boolean,
  ): void {
    if (name !== undefined) {
      this.#stack.at(-1)!.entries.pushFile(name, digest, size, isExecutable);
      return;
    }
    const node = { digest: B3Digest.fromBytes(digest).copy(), size: BigInt(size) };
    this.#root = { type: "file", ...node, executable: isExecutable };
  }

  symlink(name: PathComponent | undefined, target: SymlinkTarget): void {
    this.#add(name, { type: "symlink", target });
  }

  /** Has all directories that are left from now on wait for contents to be durable. */
  waitFor(stored: Promise<unknown>): void {
    const all = Promise.all([this.#stored, stored]).then(() => undefined); // nothing before it is kept
    all.catch((reason: unknown) => this.#fail(reason));
    this.#stored = all;
  }

  /**
   * Resolves when there is room for more directories.
   *
   * @throws what anything that was waited for rejects with
   */
  async room(): Promise<void> {
    if (this.#pending.length > MAX_PENDING) await this.#pumping;
    if (this.#failure !== undefined) throw this.#failure.reason;
  }

  /** Makes the tree visible. Returns its root, once everything is durable. */
  async finish(): Promise<Node> {
    await this.#pumping;
    await this.#stored;
    if (this.#failure !== undefined) throw this.#failure.reason;
    await this.#putter?.close();
    return this.#root!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#pending.length = 0;
    await this.#pumping;
    await this.#putter?.[Symbol.asyncDispose]();
  }

  #add(name: PathComponent | undefined, node: Node): void {
    if (name === undefined) this.#root = node;
    else this.#stack.at(-1)!.entries.push(name, node);
  }

  /** Stores directories one at a time, in their order. */
  async #pump(): Promise<void> {
    try {
      for (let next = this.#pending[0]; next !== undefined; next = this.#pending[0]) {
        await next.stored;
        this.#putter ??= this.#directoryService.openPutter(this.#options);
        await this.#putter.put(next.directory);
        this.#pending.shift();
      }
    } catch (reason) {
      this.#fail(reason);
    } finally {
      this.#pumping = undefined;
    }
  }

  #fail(reason: unknown): void {
    this.#failure ??= { reason };
  }
}
