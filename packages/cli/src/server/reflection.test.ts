import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { v1, v1alpha } from "@tvix/proto/reflection";
import { describe, expect, it } from "vitest";
import { startFixture } from "../../test/server-fixture.ts";

type Question = NonNullable<v1.ServerReflectionRequest["messageRequest"]>;

const BLOBSTORE = "tvix/castore/protos/rpc_blobstore.proto";

describe.each([
  ["v1", v1.ServerReflection],
  ["v1alpha", v1alpha.ServerReflection as unknown as typeof v1.ServerReflection],
])("reflection %s", (_, service) => {
  /** Asks several questions in one call. */
  async function ask(...questions: readonly Question[]) {
    await using fixture = await startFixture();
    const client = createClient(service, createGrpcTransport({ baseUrl: fixture.url }));
    const requests = async function* () {
      for (const messageRequest of questions) yield { host: "here", messageRequest };
    };
    const answers: v1.ServerReflectionResponse[] = [];
    for await (const answer of client.serverReflectionInfo(requests())) answers.push(answer);
    return answers;
  }

  /** The names of the files in the answer to one question, or the error. */
  async function filesOf(question: Question): Promise<unknown> {
    const [answer] = await ask(question);
    const response = answer?.messageResponse;
    if (response?.case !== "fileDescriptorResponse") return response?.value;
    return response.value.fileDescriptorProto.map(
      (file) => fromBinary(FileDescriptorProtoSchema, file).name,
    );
  }

  it("lists what is served, health and itself included", async () => {
    const [answer] = await ask({ case: "listServices", value: "" });
    expect(answer?.messageResponse.value).toMatchObject({
      service: [
        { name: "tvix.castore.v1.BlobService" },
        { name: "grpc.health.v1.Health" },
        { name: "grpc.reflection.v1.ServerReflection" },
        { name: "grpc.reflection.v1alpha.ServerReflection" },
      ],
    });
  });

  it.each([
    ["a service", "tvix.castore.v1.BlobService"],
    ["a method", "tvix.castore.v1.BlobService.Put"],
    ["a message", "tvix.castore.v1.StatBlobResponse"],
    ["a nested message", "tvix.castore.v1.StatBlobResponse.ChunkMeta"],
    ["a field", "tvix.castore.v1.StatBlobResponse.ChunkMeta.digest"],
  ])("finds the file of %s", async (_kind, value) => {
    expect(await filesOf({ case: "fileContainingSymbol", value })).toEqual([BLOBSTORE]);
  });

  it.each([
    ["an enum", "grpc.health.v1.HealthCheckResponse.ServingStatus"],
    ["a value of an enum", "grpc.health.v1.HealthCheckResponse.NOT_SERVING"],
  ])("finds the file of %s", async (_kind, value) => {
    expect(await filesOf({ case: "fileContainingSymbol", value })).toEqual([
      "grpc/health/v1/health.proto",
    ]);
  });

  it("finds the file of a oneof", async () => {
    const value = "grpc.reflection.v1.ServerReflectionRequest.message_request";
    expect(await filesOf({ case: "fileContainingSymbol", value })).toEqual([
      "grpc/reflection/v1/reflection.proto",
    ]);
  });

  it("finds a file by its name", async () => {
    expect(await filesOf({ case: "fileByFilename", value: BLOBSTORE })).toEqual([BLOBSTORE]);
  });

  it.each([
    [{ case: "fileByFilename", value: "no.proto" }, 'cannot find file "no.proto"'],
    [{ case: "fileContainingSymbol", value: "a.B" }, 'cannot find symbol "a.B"'],
    [{ case: "allExtensionNumbersOfType", value: "a.B" }, 'cannot find message "a.B"'],
    [
      {
        case: "fileContainingExtension",
        value: { containingType: "tvix.castore.v1.BlobChunk", extensionNumber: 7 },
      },
      'cannot find extension 7 of "tvix.castore.v1.BlobChunk"',
    ],
  ] as [Question, string][])("does not find %j", async (question, errorMessage) => {
    const [answer] = await ask(question);
    expect(answer?.messageResponse).toMatchObject({
      case: "errorResponse",
      value: { errorCode: Code.NotFound, errorMessage },
    });
  });

  it("knows that a message has no extensions", async () => {
    const value = "tvix.castore.v1.BlobChunk";
    const [answer] = await ask({ case: "allExtensionNumbersOfType", value });
    expect(answer?.messageResponse).toMatchObject({
      case: "allExtensionNumbersResponse",
      value: { baseTypeName: value, extensionNumber: [] },
    });
  });

  it("refuses an empty question, answers those after it, and repeats each", async () => {
    const questions: Question[] = [
      { case: undefined },
      { case: "fileByFilename", value: BLOBSTORE },
    ];
    const answers = await ask(...questions);
    expect(answers).toMatchObject([
      {
        validHost: "here",
        originalRequest: { host: "here", messageRequest: questions[0] },
        messageResponse: { case: "errorResponse", value: { errorCode: Code.InvalidArgument } },
      },
      {
        validHost: "here",
        originalRequest: { host: "here", messageRequest: questions[1] },
        messageResponse: { case: "fileDescriptorResponse" },
      },
    ]);
  });
});
