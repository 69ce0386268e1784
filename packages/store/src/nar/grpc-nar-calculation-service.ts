import { type AbortOptions, type Node, nodeToProto } from "@tvix/castore";
import { type Channel, StreamCall } from "@tvix/castore/grpc";
import { fromConnectError } from "@tvix/castore/rpc";
import { PathInfoService as PathInfoServiceDescriptor } from "@tvix/proto/store";
import type { CalculatedNar, NarCalculationService } from "./nar-calculation-service.ts";

/** Has a gRPC server compute NARs of what it stores. The channel stays its owner's. */
export class GrpcNarCalculationService implements NarCalculationService {
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  async calculateNar(root: Node, options?: AbortOptions): Promise<CalculatedNar> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    try {
      const { calculateNAR } = PathInfoServiceDescriptor.method;
      const request = nodeToProto(undefined, root);
      const { narSize, narSha256 } = await StreamCall.unary(
        this.#channel,
        calculateNAR,
        request,
        options,
      );
      return { narSize, narSha256 };
    } catch (error) {
      throw fromConnectError(error, `Cannot calculate a NAR at ${this.#channel.address}`, signal);
    }
  }
}
