/**
 * Largest message that is sent or taken, in bytes. A directory is one message, so this is also the
 * largest directory that can be stored.
 */
export const MAX_MESSAGE_BYTES: number = 32 * 1024 * 1024;

/**
 * Longest chunk of a blob, whoever cut it, in bytes: twice the largest average that is offered. A longer one that
 * somebody else lists is refused, so that no list makes us hold too much.
 */
export const MAX_CHUNK_BYTES: number = 8 * 1024 * 1024;

/** How many blobs, and how many bytes of them, go into one call of the batch service. */
export const MAX_BATCH_BLOBS: number = 16_384;
export const MAX_BATCH_BYTES: number = 4 * 1024 * 1024;

/** How many blobs, and how many bytes of them, one call that answers each by itself may be reading. */
export const MAX_EACH_READS: number = 64;
export const MAX_EACH_BYTES: number = 2 * 1024 * 1024;

/** How many chunks a list has that is sent or taken: those of 4 TiB as we cut them. */
export const MAX_LIST_CHUNKS: number = 16 * 1024 * 1024;
