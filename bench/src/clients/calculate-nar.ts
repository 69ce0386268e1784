/**
 * Has a daemon calculate the NAR of its only store path.
 *
 *   calculate-nar.ts ADDRESS
 */
import { connect } from "node:net";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { nodeToProto } from "@tvix/castore";
import { PathInfoService } from "@tvix/proto/store";
import { openPathInfoService } from "@tvix/store";
import { onlyPathInfo } from "./only-path-info.ts";
import { reportWork, secondsOf } from "./report-work.ts";

const [address] = process.argv.slice(2) as [string];
await using pathInfoService = await openPathInfoService(address);
const { node, narSize } = await onlyPathInfo(pathInfoService);

const socket = decodeURIComponent(new URL(address.slice("grpc+".length)).pathname);
const baseUrl = "http://localhost";
const sessionManager = new Http2SessionManager(baseUrl, undefined, {
  createConnection: () => connect(socket),
});
const client = createClient(PathInfoService, createGrpcTransport({ baseUrl, sessionManager }));
const seconds = await secondsOf(async () => {
  const calculated = await client.calculateNAR(nodeToProto(undefined, node));
  if (calculated.narSize !== narSize) {
    throw new Error(`Cannot use this run: ${calculated.narSize} bytes, expected ${narSize}`);
  }
});
sessionManager.abort();
reportWork({ seconds, bytes: Number(narSize) });
