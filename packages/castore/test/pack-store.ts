import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach } from "vitest";
import { type B3Digest, collectBytes, PackBlobService, type PackOptions } from "../src/index.ts";

/** A pack store in a folder of its own for each test. */
export class PackStore {
  #folder = "";

  constructor() {
    beforeEach(() => {
      this.#folder = mkdtempSync(join(tmpdir(), "pack-"));
    });
    afterEach(() => rmSync(this.#folder, { recursive: true }));
  }

  get path(): string {
    return join(this.#folder, "blobs");
  }

  get index(): string {
    return join(this.path, "index.sqlite");
  }

  packOf(pack = 1): string {
    return join(this.path, "packs", `${pack}`.padStart(8, "0").concat(".pack"));
  }

  open(options: Partial<PackOptions> = {}): Promise<PackBlobService> {
    return PackBlobService.open({ path: this.path, ...options });
  }

  /** Opens a service that collects what it reports as damaged. */
  async openReporting(): Promise<{ service: PackBlobService; reports: string[] }> {
    const reports: string[] = [];
    const service = await this.open({ onCorrupt: (message) => reports.push(message) });
    return { service, reports };
  }
}

/** Reads a whole blob that is there. */
export async function readBack(service: PackBlobService, digest: B3Digest): Promise<Uint8Array> {
  return await collectBytes((await service.read(digest))!);
}

/** Flips a bit of a file, 0 to 7 of a byte. */
export function flipBit(file: string, at: number, bit = 0): void {
  const bytes = readFileSync(file);
  bytes[at]! ^= 1 << bit;
  writeFileSync(file, bytes);
}
