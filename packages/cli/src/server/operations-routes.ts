import type { ServerResponse } from "node:http";
import type { AdmittedHandler } from "./http-guard.ts";
import { pathOf } from "./http-route.ts";
import type { HttpResponse } from "./one-port.ts";

/** What the routes tell. */
export interface Operations {
  /** Returns the metrics in the format of Prometheus. `undefined`: they are not served here. */
  readonly metrics: (() => Promise<string>) | undefined;
  /** Content type of the metrics. */
  readonly metricsType: string;
  /** Resolves with why the server cannot serve; `undefined` if it can. */
  ready(): Promise<string | undefined>;
}

/**
 * Answers `/healthz`, `/readyz` and `/metrics`, without a line in the log, and hands other requests on.
 */
export function operationsRoutes(operations: Operations, next: AdmittedHandler): AdmittedHandler {
  const answers: Readonly<Record<string, (() => Promise<Answer>) | undefined>> = {
    "/healthz": async () => text(200, "ok"),
    "/readyz": async () => {
      const reason = await operations.ready();
      return reason === undefined ? text(200, "ok") : text(503, reason);
    },
    "/metrics": operations.metrics && metricsAnswer(operations.metrics, operations.metricsType),
  };
  return (request, response, source) => {
    const { method, url = "" } = request;
    const path = pathOf(url);
    const answer = Object.hasOwn(answers, path) ? answers[path] : undefined;
    const isRead = method === "GET" || method === "HEAD";
    if (answer === undefined || !isRead) next(request, response, source);
    else {
      void answer()
        .catch(() => text(500, "Cannot read the metrics"))
        .then((answer) => send(response, answer, method === "HEAD"));
    }
  };
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

function metricsAnswer(metrics: () => Promise<string>, type: string): () => Promise<Answer> {
  return async () => ({ status: 200, type, body: await metrics() });
}

function text(status: number, message: string): Answer {
  return { status, type: "text/plain; charset=utf-8", body: `${message}\n` };
}

function send(response: HttpResponse, { status, type, body }: Answer, isHead: boolean): void {
  // Both classes have the methods used here.
  (response as ServerResponse).writeHead(status, {
    "content-type": type,
    "cache-control": "no-store",
    "content-length": Buffer.byteLength(body),
  });
  response.end(isHead ? "" : body);
}
