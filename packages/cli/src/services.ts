import {
  type AbortOptions,
  type BlobService,
  type DirectoryService,
  openBlobService,
  openDirectoryService,
} from "@tvix/castore";
import { openPathInfoService, type PathInfoService } from "@tvix/store";
import type { ServiceAddresses } from "./addresses.ts";

/** The three services that every command works on. Disposing of it closes them. */
export interface Services extends AsyncDisposable {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
  readonly pathInfoService: PathInfoService;
}

/** Opens the three services; none stays open if one of them cannot be opened. */
export async function openServices(
  addresses: ServiceAddresses,
  options?: AbortOptions,
): Promise<Services> {
  await using opened = new AsyncDisposableStack();
  const blobService = opened.use(await openBlobService(addresses.blobServiceAddr, options));
  const directoryService = opened.use(
    await openDirectoryService(addresses.directoryServiceAddr, options),
  );
  const pathInfoService = opened.use(
    await openPathInfoService(addresses.pathInfoServiceAddr, options),
  );
  const stack = opened.move();
  return {
    blobService,
    directoryService,
    pathInfoService,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
