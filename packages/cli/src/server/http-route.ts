/** Kinds of requests by what their path is, the first that fits. */
const ROUTES: readonly (readonly [pattern: RegExp, route: string])[] = [
  [/\.narinfo$/, "narinfo"],
  [/^\/nix-cache-info$/, "nix-cache-info"],
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

const LOCAL = "/local/";

/** Returns the path of a request target, which is all of it before the query. */
export function pathOf(target: string): string {
  const end = target.indexOf("?");
  return end === -1 ? target : target.slice(0, end);
}

/** Returns the kind of a request, one of a few whatever clients send. */
export function routeOf(target: string): string {
  let path = pathOf(target);
  if (path.startsWith(LOCAL)) path = path.slice(LOCAL.length - 1);
  return ROUTES.find(([pattern]) => pattern.test(path))?.[1] ?? "other";
}
