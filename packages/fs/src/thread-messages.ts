import type { FileSystemOptions } from "./file-system.ts";
import type { Answer, Form, Need } from "./need.ts";
import type { Region, SharedRingMemory } from "./shared-ring.ts";

/** What the thread of the device starts with. */
export interface DeviceThreadData {
  /** The open device. */
  readonly fd: number;
  /** Shared numbers, see {@link STATE}. */
  readonly state: Int32Array;
  readonly options: FileSystemOptions;
  /** Folder of a pack store whose chunks the thread reads by itself; `undefined` where the other one fetches them. */
  readonly packFolder: string | undefined;
  /** Where the contents of {@link PostedAnswer}s are. */
  readonly ring: SharedRingMemory;
}

/** An answer on its way to the thread of the device: contents stand in the ring, where there was room. */
export type PostedAnswer =
  | Answer
  | { readonly key: string; readonly form: Form; readonly region: Region };

/** Indexes of the numbers that both threads share. */
export const STATE = {
  /** 1 while the thread waits for a request, or is about to. */
  asleep: 0,
  /** How many messages were posted to the thread. */
  posted: 1,
  /** 1 to end the thread. */
  stop: 2,
} as const;

/** A message of the thread of the device. */
export type FromDevice =
  /** It serves requests from now on. */
  | { readonly isReady: true }
  | { readonly needs: readonly Need[] }
  | { readonly cancelled: readonly string[] }
  | { readonly trouble: string };
