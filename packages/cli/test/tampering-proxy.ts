import { once } from "node:events";
import { createServer, request as httpRequest, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

/** What a proxy has seen of a request. */
interface SeenRequest {
  readonly method: string;
  readonly url: string;
  readonly range: string | undefined;
  readonly status: number | undefined;
}

/** A proxy in front of a server of HTTP, which tampers with some requests. */
export interface TamperingProxy extends AsyncDisposable {
  readonly url: string;
  readonly seen: readonly SeenRequest[];
  /** Changes the bytes of a request. Default: none are changed. */
  onRequestData: (request: IncomingMessage, data: Buffer) => Buffer;
  /** Returns after how many bytes of its body the response to a request breaks off. Default: none does. */
  breaksAfter: (request: IncomingMessage) => number | undefined;
}

/** Starts a proxy for a server, such as `127.0.0.1:4711`. */
export async function startTamperingProxy(address: string): Promise<TamperingProxy> {
  const seen: SeenRequest[] = [];
  const server = createServer((request, response) => {
    const { method = "", url = "", headers } = request;
    const { expect: _, ...passed } = headers; // the client was told to go on
    const target = httpRequest(`http://${address}${url}`, { method, headers: passed });
    target.on("error", () => response.destroy());
    target.on("response", (answer) => {
      seen.push({ method, url, range: headers.range, status: answer.statusCode });
      response.writeHead(answer.statusCode!, answer.headers);
      let left = proxy.breaksAfter(request) ?? Number.POSITIVE_INFINITY;
      answer.on("data", (data: Buffer) => {
        if (left < 0) return;
        response.write(data.subarray(0, left));
        left -= data.length;
        if (left < 0) setTimeout(() => response.destroy(), 20); // once they were sent
      });
      answer.on("end", () => left >= 0 && response.end());
      answer.on("error", () => response.destroy());
    });
    request.on("data", (data: Buffer) => target.write(proxy.onRequestData(request, data)));
    request.on("end", () => target.end());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const proxy: TamperingProxy = {
    url: `http://127.0.0.1:${port}`,
    seen,
    onRequestData: (_, data) => data,
    breaksAfter: () => undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return proxy;
}
