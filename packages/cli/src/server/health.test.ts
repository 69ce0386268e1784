import { type Client, Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Health, HealthCheckResponse_ServingStatus as Status } from "@tvix/proto/health";
import { describe, expect, it } from "vitest";
import { type Fixture, startFixture } from "../../test/server-fixture.ts";

function healthClient({ url }: Fixture): Client<typeof Health> {
  return createClient(Health, createGrpcTransport({ baseUrl: url }));
}

/** Begins to watch and gives the first status and the rest. */
async function watch(client: Client<typeof Health>, service: string, signal?: AbortSignal) {
  const statuses = client.watch({ service }, { signal })[Symbol.asyncIterator]();
  const first = await statuses.next();
  return { first: first.value?.status, statuses };
}

describe("the health service", () => {
  it.each(["", "tvix.castore.v1.BlobService", "grpc.health.v1.Health"])(
    "says that %j is serving",
    async (service) => {
      await using fixture = await startFixture();
      expect((await healthClient(fixture).check({ service })).status).toBe(Status.SERVING);
    },
  );

  it("does not find a service that is not served", async () => {
    await using fixture = await startFixture();
    await expect(
      healthClient(fixture).check({ service: "tvix.castore.v1.Blob" }),
    ).rejects.toMatchObject({
      code: Code.NotFound,
      rawMessage: 'cannot check "tvix.castore.v1.Blob": no such service',
    });
  });

  it.each(["", "tvix.castore.v1.BlobService"])(
    "tells a watcher of %j when the server stops, and ends",
    async (service) => {
      await using fixture = await startFixture();
      const { first, statuses } = await watch(healthClient(fixture), service);
      expect(first).toBe(Status.SERVING);
      const shutdown = fixture.server.shutdown();
      expect((await statuses.next()).value?.status).toBe(Status.NOT_SERVING);
      expect((await statuses.next()).done).toBe(true);
      await shutdown;
    },
  );

  it("tells a watcher of an unknown service that it is unknown, and waits", async () => {
    await using fixture = await startFixture();
    const { first, statuses } = await watch(healthClient(fixture), "nothing");
    expect(first).toBe(Status.SERVICE_UNKNOWN);
    const shutdown = fixture.server.shutdown();
    expect((await statuses.next()).done).toBe(true);
    await shutdown;
  });

  it("ends a watch that its client gives up", async () => {
    await using fixture = await startFixture();
    const client = new AbortController();
    await watch(healthClient(fixture), "", client.signal);
    client.abort();
    await expect
      .poll(() => fixture.lines.filter(({ method }) => method === "Watch"))
      .toMatchObject([{ code: "canceled" }]);
  });
});
