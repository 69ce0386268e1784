import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import type { DirectoryService as DirectoryServiceDescriptor } from "@tvix/proto/castore";
import type { DirectoryService } from "../../directoryservice/directory-service.ts";
import { directoryFromProto, directoryToProto } from "../../model/convert.ts";
import { B3Digest } from "../../model/digest.ts";
import { toConnectError } from "../transport/connect-error.ts";
import { expectWholeUpload } from "./blob-service-handler.ts";

/** Serves a directory service. */
export function directoryServiceHandler(
  directoryService: DirectoryService,
): ServiceImpl<typeof DirectoryServiceDescriptor> {
  return {
    async *get({ byWhat, recursive }, { signal }) {
      try {
        if (byWhat.case !== "digest") {
          throw new ConnectError("Cannot get a directory: no digest given", Code.InvalidArgument);
        }
        const digest = B3Digest.fromBytes(byWhat.value);
        if (recursive) {
          // An absent root is an empty stream, as in tvix.
          const tree = directoryService.getRecursive(digest, { signal });
          for await (const directory of tree) yield directoryToProto(directory);
          return;
        }
        const directory = await directoryService.get(digest, { signal });
        if (directory === undefined) {
          throw new ConnectError(`Directory ${digest} not found`, Code.NotFound);
        }
        yield directoryToProto(directory);
      } catch (error) {
        throw toConnectError(error);
      }
    },

    async put(messages, { signal }) {
      try {
        await using putter = directoryService.openPutter({ signal });
        for await (const message of messages) await putter.put(directoryFromProto(message));
        await expectWholeUpload(signal);
        const root = await putter.close();
        return { rootDigest: root.bytes };
      } catch (error) {
        throw toConnectError(error);
      }
    },
  };
}
