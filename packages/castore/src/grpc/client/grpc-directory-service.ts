import { DirectoryService as DirectoryServiceDescriptor } from "@tvix/proto/castore";
import type { AbortOptions } from "../../bytes/abort-options.ts";
import type {
  DirectoryPutter,
  DirectoryService,
  RecursiveOptions,
} from "../../directoryservice/directory-service.ts";
import { encodeDirectory } from "../../directoryservice/encoded-directory.ts";
import { getOneByOne, hasOneByOne } from "../../directoryservice/one-by-one.ts";
import { RootToLeavesValidator } from "../../directoryservice/order-validator.ts";
import { StagedTree } from "../../directoryservice/staged-tree.ts";
import { traverseDirectory } from "../../directoryservice/traverse.ts";
import { B3Digest } from "../../model/digest.ts";
import type { Directory } from "../../model/directory.ts";
import { CastoreError } from "../../model/errors.ts";
import type { Channel } from "../transport/channel.ts";
import { frameBytes } from "../transport/frames.ts";
import { received } from "../transport/received.ts";
import { fromRpcError } from "../transport/rpc-error.ts";
import { StreamCall } from "../transport/stream-call.ts";
import { Upload } from "../transport/upload.ts";
import { GrpcDirectoryBatch } from "./grpc-directory-batch.ts";
import { receivedDirectory } from "./received-directory.ts";

/** Up to this many bytes of a tree are kept to be sent again to a server that restarts. */
const KEPT_BYTES = 8 * 1024 * 1024;

const METHODS = DirectoryServiceDescriptor.method;

/** Directories in a gRPC server, verified as they arrive. Disposes of its channel. */
export class GrpcDirectoryService implements DirectoryService {
  readonly #channel: Channel;
  readonly #batch: GrpcDirectoryBatch;

  constructor(channel: Channel) {
    this.#channel = channel;
    this.#batch = new GrpcDirectoryBatch(channel);
  }

  async get(digest: B3Digest, options?: AbortOptions): Promise<Directory | undefined> {
    let found: Directory | undefined;
    for await (const directory of this.#read(digest, false, options)) {
      if (found !== undefined) {
        const reason = "expected one directory, found more";
        throw new CastoreError("data_loss", `${this.#cannotGet(digest)}: ${reason}`);
      }
      found = directory;
    }
    return found;
  }

  async getMany(
    digests: readonly B3Digest[],
    options?: AbortOptions,
  ): Promise<readonly (Directory | undefined)[]> {
    const found = await this.#batch.get(digests, options);
    return found ?? (await getOneByOne(this, digests, options));
  }

  async hasMany(digests: readonly B3Digest[], options?: AbortOptions): Promise<readonly boolean[]> {
    const found = await this.#batch.has(digests, options);
    return found ?? (await hasOneByOne(this, digests, options));
  }

  getRecursive(digest: B3Digest, options?: RecursiveOptions): AsyncIterable<Directory> {
    // What is to be skipped is known only when its parent has come: a batch for each level, in place of everything.
    if (options?.skip) return traverseDirectory(this.getMany.bind(this), digest, options);
    return this.#read(digest, true, { signal: options?.signal });
  }

  openPutter(options?: AbortOptions): DirectoryPutter {
    const { address } = this.#channel;
    const action = `Cannot put directories at ${address}`;
    const upload = new Upload(this.#channel, METHODS.put, action, {
      ...options,
      keptBytes: KEPT_BYTES,
    });
    let root: B3Digest | undefined;
    return new StagedTree(
      {
        async add({ bytes, digest }) {
          root = digest;
          await upload.send(frameBytes(bytes));
        },
        async commit() {
          const { rootDigest } = await upload.finish();
          const stored = received(action, () => B3Digest.fromBytes(rootDigest));
          if (root !== undefined && !stored.equals(root)) {
            throw new CastoreError(
              "data_loss",
              `Cannot put directory ${root} at ${address}: the server stored ${stored}`,
            );
          }
        },
        discard: () => upload.cancel(),
      },
      options,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
  }

  async *#read(
    digest: B3Digest,
    recursive: boolean,
    options?: AbortOptions,
  ): AsyncGenerator<Directory> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    const action = this.#cannotGet(digest);
    const validator = new RootToLeavesValidator(digest);
    try {
      const byWhat = { case: "digest", value: digest.bytes } as const;
      const request = { byWhat, recursive };
      const batches = StreamCall.encodedStream(this.#channel, METHODS.get, request, options);
      for await (const messages of batches) {
        for (const message of messages) {
          signal?.throwIfAborted();
          yield received(action, () => {
            const directory = receivedDirectory(message, (digest) => validator.expects(digest));
            validator.add(encodeDirectory(directory));
            return directory;
          });
        }
      }
    } catch (error) {
      const failure = fromRpcError(error, action, signal);
      if (failure instanceof CastoreError && failure.code === "not_found") return;
      throw failure;
    }
    if (recursive) received(action, () => validator.finish());
  }

  #cannotGet(digest: B3Digest): string {
    return `Cannot get directory ${digest} at ${this.#channel.address}`;
  }
}
