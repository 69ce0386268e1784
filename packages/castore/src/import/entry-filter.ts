/**
 * Tells whether an entry is left out of an import, with everything below it.
 *
 * @param path its path below the root of the import, of names separated by slashes, not to be changed
 */
export type EntryFilter = (path: Uint8Array, isFolder: boolean) => boolean;
