import { type Client, createClient } from "@connectrpc/connect";
import { type AbortOptions, type Node, nodeToProto } from "@tvix/castore";
import type { Channel } from "@tvix/castore/grpc";
import { fromConnectError } from "@tvix/castore/rpc";
import { PathInfoService as PathInfoServiceDescriptor } from "@tvix/proto/store";
import type { CalculatedNar, NarCalculationService } from "./nar-calculation-service.ts";

/** Has a gRPC server compute NARs of what it stores. The channel stays its owner's. */
export class GrpcNarCalculationService implements NarCalculationService {
  readonly #address: string;
  readonly #client: Client<typeof PathInfoServiceDescriptor>;

  constructor(channel: Channel) {
    this.#address = channel.address;
    this.#client = createClient(PathInfoServiceDescriptor, channel.transport);
  }

  async calculateNar(root: Node, options?: AbortOptions): Promise<CalculatedNar> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    try {
      const { narSize, narSha256 } = await this.#client.calculateNAR(nodeToProto(undefined, root), {
        signal,
      });
      return { narSize, narSha256 };
    } catch (error) {
      throw fromConnectError(error, `Cannot calculate a NAR at ${this.#address}`, signal);
    }
  }
}
