/** Kinds of requests by what their path is, the first that fits. */
const ROUTES: readonly (readonly [pattern: RegExp, route: string])[] = [
  [/^\/nix-cache-info$/, "nix-cache-info"],
  [/\.narinfo$/, "narinfo"],
  [/^\/nar\//, "nar"],
  [/\.ls$/, "listing"],
  [/^\/log\//, "log"],
  [/^\/realisations\//, "realisation"],
  [/^\/build-trace/, "build-trace"],
  [/^\/debuginfo\//, "debuginfo"],
  [/^\/serve\//, "serve"],
  [/^\/get-missing$/, "get-missing"],
  [/^\/(?:metrics|healthz|readyz)$/, "operations"],
];

/** Returns the kind of a request, one of a few whatever clients send. */
export function routeOf(target: string): string {
  const path = target.split("?", 1)[0]!.replace(/^\/local\//, "/");
  return ROUTES.find(([pattern]) => pattern.test(path))?.[1] ?? "other";
}
