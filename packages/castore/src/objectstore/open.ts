import type { z } from "zod";
import { suggestAddress } from "../address/meant-address.ts";
import { refusalOf } from "../address/schema-refusal.ts";
import {
  addressError,
  expectNoHost,
  expectNoPath,
  expectPath,
  parseServiceAddress,
  type ServiceAddress,
} from "../address/service-address.ts";
import { whyReadOnly } from "../disk/read-only.ts";
import { BucketObjectStore } from "./bucket-object-store.ts";
import type { ObjectStore } from "./object-store.ts";

/** Opens the object store of an address, with the options of its query and further ones. */
type Opener = (address: ServiceAddress, options: Options) => Promise<ObjectStore>;

type Options = Readonly<Record<string, unknown>>;

const OPENERS: Readonly<Record<string, Opener>> = {
  async memory(address, options) {
    expectNoHost(address);
    if (address.path !== "/") expectNoPath(address);
    expectNoOptions(address, options);
    const { MemoryObjectStore } = await import("./memory.ts");
    return new MemoryObjectStore();
  },
  async file(address, options) {
    const path = expectPath(address);
    expectNoOptions(address, options);
    const { FileObjectStore } = await import("./file.ts");
    return new FileObjectStore(path);
  },
  async sqlite(address, options) {
    const path = expectPath(address);
    expectNoOptions(address, options);
    const { SqliteObjectStore } = await import("./sqlite.ts");
    return await SqliteObjectStore.open(path);
  },
  async s3(address, options) {
    const { S3_OPTIONS, S3Bucket } = await import("./s3.ts");
    const known = optionsOf(address, options, S3_OPTIONS);
    const bucket = await S3Bucket.open(expectHost(address), known);
    return new BucketObjectStore(bucket, prefixOf(address), known.timeout_ms);
  },
  async gs(address, options) {
    const { GCS_OPTIONS, GcsBucket } = await import("./gcs.ts");
    const known = optionsOf(address, options, GCS_OPTIONS);
    const bucket = await GcsBucket.open(expectHost(address), known);
    return new BucketObjectStore(bucket, prefixOf(address), known.timeout_ms);
  },
  async az(address, options) {
    const { AZURE_OPTIONS, AzureContainer } = await import("./azure.ts");
    const known = optionsOf(address, options, AZURE_OPTIONS);
    const container = await AzureContainer.open(expectHost(address), known);
    return new BucketObjectStore(container, prefixOf(address), known.timeout_ms);
  },
  http: openHttp,
  https: openHttp,
};

async function openHttp(address: ServiceAddress, options: Options): Promise<ObjectStore> {
  const { HTTP_OPTIONS, HttpObjectStore } = await import("./http.ts");
  const known = optionsOf(address, options, HTTP_OPTIONS);
  const { scheme, path } = address;
  const folder = path.replace(/\/*$/, "/").split("/").map(encodeURIComponent).join("/");
  return new HttpObjectStore(`${scheme}://${expectHost(address)}${folder}`, known);
}

/**
 * Opens an object store by its address: `memory:///`, `file:///folder`, `sqlite:///folder`, `s3://bucket/prefix`,
 * `gs://bucket/prefix`, `az://container/prefix`, `http://host/folder`. Options of the client library are in the query
 * or in `options`.
 *
 * @throws CastoreError `invalid_argument` for any other address, or unknown options; the errors of opening the store
 */
export async function openObjectStore(text: string, options: Options = {}): Promise<ObjectStore> {
  const schemes = Object.keys(OPENERS);
  const address = parseServiceAddress(text, schemes);
  const open = Object.hasOwn(OPENERS, address.scheme) ? OPENERS[address.scheme] : undefined;
  if (open !== undefined) return await open(address, { ...address.query, ...options });
  const found = `expected an object store (${schemes.join(", ")}), found "${address.scheme}"`;
  throw addressError(address.shown, found + suggestAddress(address.shown, schemes));
}

/**
 * Returns why an object store in the local file system cannot be written; `undefined` if it can, as far as permissions tell, and
 * for those elsewhere, which tell when they are written.
 *
 * @param text its address, of which opening has been tried
 */
export async function whyObjectsReadOnly(text: string): Promise<string | undefined> {
  const { scheme, path } = parseServiceAddress(text);
  return scheme === "file" || scheme === "sqlite" ? await whyReadOnly([path]) : undefined;
}

function expectNoOptions(address: ServiceAddress, options: Options): void {
  const [key] = Object.keys(options);
  if (key !== undefined) throw addressError(address.shown, `expected no options, found "${key}"`);
}

function optionsOf<Schema extends z.ZodType>(
  address: ServiceAddress,
  options: Options,
  schema: Schema,
): z.output<Schema> {
  const result = schema.safeParse(options);
  if (result.success) return result.data;
  throw addressError(address.shown, refusalOf(result.error, schema, options).reason);
}

function expectHost(address: ServiceAddress): string {
  if (address.host !== "") return address.host;
  throw addressError(address.shown, "expected a host, or the name of a bucket, found none");
}

/** Returns the prefix of the keys: empty, or ending with `/`. */
function prefixOf({ path }: ServiceAddress): string {
  const prefix = path.replace(/^\/+|\/+$/g, "");
  return prefix === "" ? "" : `${prefix}/`;
}
