import type { AbortOptions, Node } from "@tvix/castore";
import type { CalculatedNar, NarCalculationService } from "./nar-calculation-service.ts";
import { NarHasher } from "./nar-hasher.ts";
import { type NarSources, renderNar } from "./renderer.ts";

/** Computes size and digest of a NAR by rendering it. */
export class RenderingNarCalculationService implements NarCalculationService {
  readonly #sources: NarSources;

  constructor(sources: NarSources) {
    this.#sources = sources;
  }

  async calculateNar(root: Node, options?: AbortOptions): Promise<CalculatedNar> {
    const hasher = new NarHasher();
    for await (const bytes of renderNar(root, this.#sources, options)) hasher.update(bytes);
    return hasher.digest();
  }
}
