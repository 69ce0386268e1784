import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type Sampler,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace";

const SAMPLERS: Readonly<Record<string, () => Sampler>> = {
  always_on: () => new AlwaysOnSampler(),
  always_off: () => new AlwaysOffSampler(),
  traceidratio: () => new TraceIdRatioBasedSampler(ratio()),
  parentbased_always_on: () => new ParentBasedSampler({ root: new AlwaysOnSampler() }),
  parentbased_always_off: () => new ParentBasedSampler({ root: new AlwaysOffSampler() }),
  parentbased_traceidratio: () =>
    new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio()) }),
};

/**
 * Returns the sampler that OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG name: which traces are recorded. Default:
 * `parentbased_always_on`.
 *
 * @throws Error for an unknown sampler or ratio
 */
export function samplerByName(): Sampler {
  const name = process.env.OTEL_TRACES_SAMPLER?.trim() || "parentbased_always_on";
  if (Object.hasOwn(SAMPLERS, name)) return SAMPLERS[name]!();
  const known = Object.keys(SAMPLERS).join(", ");
  throw new Error(`expected OTEL_TRACES_SAMPLER to be ${known}, found ${JSON.stringify(name)}`);
}

function ratio(): number {
  const text = process.env.OTEL_TRACES_SAMPLER_ARG?.trim() || "1";
  const ratio = Number(text);
  if (ratio >= 0 && ratio <= 1) return ratio;
  throw new Error(
    `expected OTEL_TRACES_SAMPLER_ARG to be a ratio from 0 to 1, found ${JSON.stringify(text)}`,
  );
}
