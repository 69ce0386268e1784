export { DiskCache, type DiskCacheOptions } from "./disk-cache.ts";
export type { FileSystemOptions } from "./file-system.ts";
export { type Mount, type MountOptions, mount } from "./mount.ts";
export type { MountedServices, StoreSourceOptions } from "./store-source.ts";
export { type ServeGuestsOptions, serveGuests } from "./virtiofs/serve-guests.ts";
