import { Code, type ServiceImpl } from "@connectrpc/connect";
import { DirectoryService as DirectoryServiceDescriptor } from "@tvix/proto/castore";
import { asPlainBytes, copyBytes } from "../../bytes/byte-string.ts";
import { gatherEncoded } from "../../bytes/gather.ts";
import type { DirectoryService } from "../../directoryservice/directory-service.ts";
import { directoryBytes } from "../../directoryservice/encoded-directory.ts";
import { decodeDirectory } from "../../model/convert.ts";
import { B3Digest } from "../../model/digest.ts";
import { encodedRequests, encodedStream } from "../transport/encoded-method.ts";
import { RpcError, toRpcError } from "../transport/rpc-error.ts";
import { expectWholeUpload } from "./blob-service-handler.ts";

const METHODS = DirectoryServiceDescriptor.method;

/** Directories of a tree are sent together until they have as many bytes. */
const GATHERED_BYTES = 64 * 1024;

/** Serves a directory service. */
export function directoryServiceHandler(
  directoryService: DirectoryService,
): ServiceImpl<typeof DirectoryServiceDescriptor> {
  return {
    get: encodedStream(METHODS.get, async function* ({ byWhat, recursive }, { signal }) {
      try {
        if (byWhat.case !== "digest") {
          throw new RpcError(Code.InvalidArgument, "Cannot get a directory: no digest given");
        }
        const digest = B3Digest.fromBytes(byWhat.value);
        if (recursive) {
          // An absent root is an empty stream, as in tvix.
          const tree = directoryService.getRecursive(digest, { signal });
          yield* gatherEncoded(tree, directoryBytes, GATHERED_BYTES);
          return;
        }
        const directory = await directoryService.get(digest, { signal });
        if (directory === undefined) {
          throw new RpcError(Code.NotFound, `Directory ${digest} not found`);
        }
        yield [directoryBytes(directory)];
      } catch (error) {
        throw toRpcError(error);
      }
    }),

    put: encodedRequests(METHODS.put, async (messages, { signal }) => {
      try {
        await using putter = directoryService.openPutter({ signal });
        for await (const message of messages) await putter.put(decodeDirectory(apart(message)));
        await expectWholeUpload(signal);
        const root = await putter.close();
        return { rootDigest: root.bytes };
      } catch (error) {
        throw toRpcError(error);
      }
    }),
  };
}

/** Copies a message that is a small part of its buffer: whoever keeps a message keeps all of its buffer in memory. */
function apart(message: Uint8Array): Uint8Array {
  const isMost = 2 * message.length > message.buffer.byteLength;
  return isMost ? asPlainBytes(message) : copyBytes(message);
}
