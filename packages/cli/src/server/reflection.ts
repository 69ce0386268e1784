import {
  type DescEnum,
  type DescExtension,
  type DescFile,
  type DescMessage,
  type DescService,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import { v1, v1alpha } from "@tvix/proto/reflection";
import { firstAbort } from "./first-abort.ts";

/** Options of {@link registerReflection}. */
export interface ReflectionOptions {
  /** The services that the server serves, except reflection itself. */
  services: readonly DescService[];
  /** Aborted when the server begins to stop, which ends the calls. */
  stopping: AbortSignal;
}

type Request = v1.ServerReflectionRequest | v1alpha.ServerReflectionRequest;
type Answer =
  | { case: "listServicesResponse"; value: { service: { name: string }[] } }
  | { case: "fileDescriptorResponse"; value: { fileDescriptorProto: Uint8Array[] } }
  | {
      case: "allExtensionNumbersResponse";
      value: { baseTypeName: string; extensionNumber: number[] };
    }
  | { case: "errorResponse"; value: { errorCode: number; errorMessage: string } };

/** Registers `grpc.reflection.v1.ServerReflection` and the older `v1alpha`. */
export function registerReflection(
  router: ConnectRouter,
  { services, stopping }: ReflectionOptions,
): ConnectRouter {
  const index = new DescriptorIndex([...services, v1.ServerReflection, v1alpha.ServerReflection]);
  async function* serverReflectionInfo<R extends Request>(requests: AsyncIterable<R>) {
    for await (const request of until(requests, stopping)) {
      const messageResponse = index.answer(request);
      yield { validHost: request.host, originalRequest: request, messageResponse };
    }
  }
  return router
    .service(v1.ServerReflection, { serverReflectionInfo })
    .service(v1alpha.ServerReflection, { serverReflectionInfo });
}

/** Yields the items of a stream until it ends or the signal is aborted. */
async function* until<T>(items: AsyncIterable<T>, signal: AbortSignal): AsyncIterable<T> {
  const iterator = items[Symbol.asyncIterator]();
  try {
    while (!signal.aborted) {
      const settled = new AbortController();
      const next = iterator.next().finally(() => settled.abort());
      next.catch(() => undefined);
      await firstAbort(signal, settled.signal);
      if (!settled.signal.aborted) return;
      const result = await next;
      if (result.done) return;
      yield result.value;
    }
  } finally {
    // Not awaited: return() waits for the next item, which may never come.
    iterator.return?.().catch(() => undefined);
  }
}

/** Finds file descriptors by name, symbol or extension. */
class DescriptorIndex {
  readonly #services: readonly DescService[];
  readonly #files = new Map<string, DescFile>();
  readonly #symbols = new Map<string, DescFile>();
  /** By the extended message, then by the number of the extension. */
  readonly #extensions = new Map<string, Map<number, DescFile>>();
  readonly #messages = new Set<string>();

  constructor(services: readonly DescService[]) {
    this.#services = services;
    for (const service of services) this.#addFile(service.file);
  }

  /** Answers one request. An unknown name gives an error response; the call goes on. */
  answer({ messageRequest }: Request): Answer {
    switch (messageRequest.case) {
      case "listServices":
        return {
          case: "listServicesResponse",
          value: { service: this.#services.map(({ typeName }) => ({ name: typeName })) },
        };
      case "fileByFilename":
        return fileAnswer(this.#files.get(messageRequest.value), "file", messageRequest.value);
      case "fileContainingSymbol":
        return fileAnswer(this.#symbols.get(messageRequest.value), "symbol", messageRequest.value);
      case "fileContainingExtension": {
        const { containingType, extensionNumber } = messageRequest.value;
        const file = this.#extensions.get(containingType)?.get(extensionNumber);
        return fileAnswer(file, `extension ${extensionNumber} of`, containingType);
      }
      case "allExtensionNumbersOfType":
        return this.#extensionNumbers(messageRequest.value);
      default:
        return errorAnswer(Code.InvalidArgument, "cannot answer an empty request");
    }
  }

  #extensionNumbers(typeName: string): Answer {
    if (!this.#messages.has(typeName)) return notFound("message", typeName);
    const numbers = [...(this.#extensions.get(typeName)?.keys() ?? [])];
    return {
      case: "allExtensionNumbersResponse",
      value: { baseTypeName: typeName, extensionNumber: numbers.sort((a, b) => a - b) },
    };
  }

  #addFile(file: DescFile): void {
    if (this.#files.has(file.proto.name)) return;
    this.#files.set(file.proto.name, file);
    for (const dependency of file.dependencies) this.#addFile(dependency);
    for (const message of file.messages) this.#addMessage(message);
    for (const enumeration of file.enums) this.#addEnum(enumeration);
    for (const extension of file.extensions) this.#addExtension(extension);
    for (const service of file.services) {
      this.#symbols.set(service.typeName, file);
      for (const method of service.methods) {
        this.#symbols.set(`${service.typeName}.${method.name}`, file);
      }
    }
  }

  #addMessage(message: DescMessage): void {
    const { file, typeName } = message;
    this.#messages.add(typeName);
    this.#symbols.set(typeName, file);
    for (const { name } of [...message.fields, ...message.oneofs]) {
      this.#symbols.set(`${typeName}.${name}`, file);
    }
    for (const nested of message.nestedMessages) this.#addMessage(nested);
    for (const nested of message.nestedEnums) this.#addEnum(nested);
    for (const nested of message.nestedExtensions) this.#addExtension(nested);
  }

  #addEnum({ file, typeName, parent, values }: DescEnum): void {
    this.#symbols.set(typeName, file);
    // Enum values are in the scope that encloses the enum.
    const scope = parent?.typeName ?? file.proto.package;
    for (const { name } of values) this.#symbols.set(scope ? `${scope}.${name}` : name, file);
  }

  #addExtension({ file, typeName, extendee, number }: DescExtension): void {
    this.#symbols.set(typeName, file);
    const numbers = this.#extensions.get(extendee.typeName) ?? new Map<number, DescFile>();
    this.#extensions.set(extendee.typeName, numbers.set(number, file));
  }
}

/** Returns the file and everything that it imports, itself first. */
function fileAnswer(file: DescFile | undefined, kind: string, name: string): Answer {
  if (file === undefined) return notFound(kind, name);
  const files = new Set([file]);
  for (const one of files) {
    for (const dependency of one.dependencies) files.add(dependency);
  }
  return {
    case: "fileDescriptorResponse",
    value: {
      fileDescriptorProto: Array.from(files, ({ proto }) =>
        toBinary(FileDescriptorProtoSchema, proto),
      ),
    },
  };
}

function notFound(kind: string, name: string): Answer {
  return errorAnswer(Code.NotFound, `cannot find ${kind} ${JSON.stringify(name)}`);
}

function errorAnswer(errorCode: Code, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}
