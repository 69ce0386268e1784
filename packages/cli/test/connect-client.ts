import { connect } from "node:net";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

/** A connection of a client that is not ours, to a unix socket. Disposing of it ends all calls. */
export interface ConnectChannel extends Disposable {
  clientOf<Service extends DescService>(service: Service): Client<Service>;
}

/** Opens a connection by which Connect speaks gRPC. */
export function openConnectChannel(socket: string): ConnectChannel {
  const baseUrl = "http://localhost";
  const sessionManager = new Http2SessionManager(baseUrl, undefined, {
    createConnection: () => connect(socket),
  });
  const transport: Transport = createGrpcTransport({ baseUrl, sessionManager });
  return {
    clientOf: (service) => createClient(service, transport),
    [Symbol.dispose]: () => sessionManager.abort(),
  };
}
