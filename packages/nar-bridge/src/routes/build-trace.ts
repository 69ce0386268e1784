import { StorePath } from "@tvix/store";
import { z } from "zod";
import type { BridgeContext } from "../context.ts";
import { HttpError } from "../http-error.ts";
import { sendPushedFile } from "../pushed-file.ts";
import type { Parameters, Router } from "../router.ts";
import { wholeBody } from "../upload/request-body.ts";

const HEADERS = { "content-type": "application/json" };

/** Longest description of an output, in bytes. */
const MAX_BYTES = 1024 * 1024;

/** How a version of Nix describes an output: where, and by what JSON. */
interface Form {
  readonly route: string;
  /** Returns the parts of a path; `undefined` for one that no output has. */
  pathOf(params: Parameters): readonly string[] | undefined;
  /** Returns the base name of the store path that JSON tells. Throws for any other JSON. */
  outPathOf(json: unknown, path: readonly string[]): string;
}

const OUTPUT = /^[\w+.?=-]{1,211}\.doi$/;
const HASHED_OUTPUT = /^[a-z0-9]{1,16}:[0-9a-f]{32,128}![\w+.?=-]{1,211}\.doi$/;

const REALISATION = z.looseObject({ id: z.string(), outPath: z.string() });

/** Up to Nix 2.34: the hash of a derivation, and the name of its output. */
const REALISATIONS: Form = {
  route: "/realisations/:output",
  pathOf: ({ output = "" }) => (HASHED_OUTPUT.test(output) ? ["realisations", output] : undefined),
  outPathOf(json, [, output]) {
    const { id, outPath } = REALISATION.parse(json);
    if (`${id}.doi` !== output) throw new Error(`expected another output, found "${id}"`);
    return outPath;
  },
};

const VALUE = z.looseObject({ outPath: z.string() });
const ENTRY = z.looseObject({ value: VALUE });

/** From Nix 2.35 on. What it pushes is the value of an entry; an entry has its key beside it. */
const BUILD_TRACE: Form = {
  route: "/build-trace-v2/:drv/:output",
  pathOf({ drv = "", output = "" }) {
    const isOutput = StorePath.parse(drv).name.endsWith(".drv") && OUTPUT.test(output);
    return isOutput ? ["build-trace-v2", drv, output] : undefined;
  },
  outPathOf(json) {
    const entry = ENTRY.safeParse(json);
    return (entry.success ? entry.data.value : VALUE.parse(json)).outPath;
  },
};

/** Serves which store paths the outputs of content-addressed derivations have, as clients push it. */
export function buildTraceRoutes(router: Router, { sideObjects }: BridgeContext): void {
  for (const { route, pathOf, outPathOf } of [REALISATIONS, BUILD_TRACE]) {
    const expectPath = (params: Parameters) => {
      const path = pathOf(params);
      if (path !== undefined) return path;
      throw new HttpError(400, `Cannot use "${route}": expected the name of an output and ".doi"`);
    };

    router.get(route, async (exchange, params) => {
      await sendPushedFile(exchange, sideObjects, expectPath(params), HEADERS);
    });

    router.put(route, async (exchange, params) => {
      const path = expectPath(params);
      const name = `"${path.join("/")}"`;
      const bytes = await wholeBody(exchange, { name, maxBytes: MAX_BYTES });
      try {
        StorePath.parse(outPathOf(JSON.parse(bytes.toString()), path));
      } catch (cause) {
        const reason = "expected JSON that names this output and its store path";
        throw new HttpError(400, `Cannot store ${name}: ${reason}`, { cause });
      }
      await sideObjects.put(path, bytes, { signal: exchange.signal });
      exchange.created();
    });
  }
}
