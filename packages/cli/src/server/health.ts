import type { DescService } from "@bufbuild/protobuf";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import { RpcError } from "@tvix/castore/rpc";
import { Health, HealthCheckResponse_ServingStatus as Status } from "@tvix/proto/health";
import { firstAbort } from "./first-abort.ts";

/** Options of {@link registerHealth}. */
export interface HealthOptions {
  /** The services that the server serves. */
  services: readonly DescService[];
  /** Aborted when the server begins to stop: from then on every service is NOT_SERVING. */
  stopping: AbortSignal;
}

/**
 * Registers `grpc.health.v1.Health`. The server as a whole (`""`) and each of its services are SERVING until the server
 * begins to stop. Watchers get that change before their calls end.
 */
export function registerHealth(
  router: ConnectRouter,
  { services, stopping }: HealthOptions,
): ConnectRouter {
  const known = new Set(["", ...services.map((service) => service.typeName)]);
  const statusOf = (service: string): Status => {
    if (!known.has(service)) return Status.SERVICE_UNKNOWN;
    return stopping.aborted ? Status.NOT_SERVING : Status.SERVING;
  };
  return router.service(Health, {
    check({ service }) {
      if (!known.has(service)) {
        throw new RpcError(
          Code.NotFound,
          `cannot check ${JSON.stringify(service)}: no such service`,
        );
      }
      return { status: statusOf(service) };
    },
    async *watch({ service }, { signal }) {
      const before = statusOf(service);
      yield { status: before };
      await firstAbort(signal, stopping);
      const after = statusOf(service);
      if (!signal.aborted && after !== before) yield { status: after };
    },
  });
}
