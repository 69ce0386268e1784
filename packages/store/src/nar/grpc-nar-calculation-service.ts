import { type AbortOptions, type Node, nodeToProto } from "@tvix/castore";
import { type Channel, fromRpcError, StreamCall } from "@tvix/castore/grpc";
import { PathInfoService as PathInfoServiceDescriptor } from "@tvix/proto/store";
import { StoreError } from "../errors.ts";
import type { CalculatedNar, NarCalculationService } from "./nar-calculation-service.ts";

/** Length of a SHA-256 digest in bytes. */
const SHA256_LENGTH = 32;

/** Asks a gRPC server to compute NARs of trees that it stores. Does not dispose of the channel. */
export class GrpcNarCalculationService implements NarCalculationService {
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  async calculateNar(root: Node, options?: AbortOptions): Promise<CalculatedNar> {
    const signal = options?.signal;
    signal?.throwIfAborted();
    const action = `Cannot calculate a NAR at ${this.#channel.address}`;
    let calculated: CalculatedNar;
    try {
      const { calculateNAR } = PathInfoServiceDescriptor.method;
      const request = nodeToProto(undefined, root);
      calculated = await StreamCall.unary(this.#channel, calculateNAR, request, options);
    } catch (error) {
      throw fromRpcError(error, action, signal);
    }
    const { narSize, narSha256 } = calculated;
    if (narSha256.length === SHA256_LENGTH) return { narSize, narSha256 };
    const lengths = `expected ${SHA256_LENGTH} bytes as SHA-256, found ${narSha256.length}`;
    throw new StoreError("data_loss", `${action}: ${lengths}`);
  }
}
