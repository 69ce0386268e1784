import { readFile } from "node:fs/promises";
import {
  type AbortOptions,
  type BlobService,
  CastoreError,
  Composition,
  type CompositionOptions,
  type DirectoryService,
} from "@tvix/castore";
import { type PathInfoService, STORE_REGISTRIES } from "@tvix/store";
import type { ServiceOptions } from "./addresses.ts";

/** The three services that every command works on. Disposing of it closes them. */
export interface Services extends AsyncDisposable {
  readonly blobService: BlobService;
  readonly directoryService: DirectoryService;
  readonly pathInfoService: PathInfoService;
}

/**
 * Opens the three services; none stays open if one of them cannot be opened.
 *
 * @param options.onEvent is told what stores tell of. Default: a process warning
 */
export async function openServices(
  services: ServiceOptions,
  options?: AbortOptions & CompositionOptions,
): Promise<Services> {
  await using stack = new AsyncDisposableStack();
  const composition = stack.use(await compose(services, options));
  const blobService = await composition.service("blobservices", undefined, options);
  const directoryService = await composition.service("directoryservices", undefined, options);
  const pathInfoService = await composition.service("pathinfoservices", undefined, options);
  const opened = stack.move();
  return {
    blobService,
    directoryService,
    pathInfoService,
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

async function compose(
  { storeComposition, ...addresses }: ServiceOptions,
  options?: CompositionOptions,
): Promise<Composition> {
  if (storeComposition !== undefined) {
    const text = await readComposition(storeComposition);
    return await Composition.parseToml(STORE_REGISTRIES, text, options);
  }
  const named = {
    blobservices: { default: addresses.blobServiceAddr },
    directoryservices: { default: addresses.directoryServiceAddr },
    pathinfoservices: { default: addresses.pathInfoServiceAddr },
  };
  return new Composition(STORE_REGISTRIES, named, options);
}

async function readComposition(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new CastoreError(
      "invalid_argument",
      `Cannot read store composition "${path}": the system answered ${code}`,
      { cause: error },
    );
  }
}
