export { GrpcNarCalculationService } from "./nar/grpc-nar-calculation-service.ts";
export { GrpcPathInfoService } from "./pathinfoservice/grpc.ts";
