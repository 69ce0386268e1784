import { randomUUID } from "node:crypto";
import {
  defaultResource,
  detectResources,
  envDetector,
  type Resource,
  resourceFromAttributes,
} from "@opentelemetry/resources";
import manifest from "../../package.json" with { type: "json" };

const OWN = {
  "service.name": "tvix-store",
  "service.version": manifest.version,
  "service.instance.id": randomUUID(),
};

/** Returns what describes this process in spans and metrics; the variables of OpenTelemetry add to it. */
export function processResource(): Resource {
  return defaultResource()
    .merge(resourceFromAttributes(OWN))
    .merge(detectResources({ detectors: [envDetector] }));
}
