import type { Logger } from "pino";
import { listen } from "../server/listen.ts";
import type { HttpResponse } from "../server/one-port.ts";
import { operationsRoutes } from "../server/operations-routes.ts";
import { type Server, startServer } from "../server/server.ts";
import { PROMETHEUS_TYPE, type ProcessMetrics, prometheusText } from "../telemetry/metrics.ts";

/**
 * Serves `/metrics`, `/healthz`, and nothing else, without tokens.
 *
 * @param gather returns the metrics of all processes
 */
export async function startMetricsServer(
  addresses: readonly string[],
  gather: () => Promise<readonly ProcessMetrics[]>,
  logger: Logger,
): Promise<Server> {
  const operations = {
    metrics: async () => prometheusText(await gather()),
    metricsType: PROMETHEUS_TYPE,
    ready: async () => undefined,
  };
  const server = await startServer({
    listen: (events) => listen(addresses, events),
    services: [],
    onOther: operationsRoutes(operations, notFound),
    logger,
  });
  logger.info({ addresses: server.addresses }, "serving metrics");
  return server;
}

function notFound(_: unknown, response: HttpResponse): void {
  response.statusCode = 404;
  response.end();
}
