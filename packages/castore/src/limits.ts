/**
 * Largest message that is sent or taken, in bytes. A directory is one message, so this is also the
 * largest directory that can be stored.
 */
export const MAX_MESSAGE_BYTES: number = 32 * 1024 * 1024;
