import createRouter from "find-my-way";
import type { Exchange } from "./exchange.ts";

/** The parameters of a path, decoded; or the keys of a query. */
export type Parameters = Readonly<Record<string, string | undefined>>;

/** Answers the requests of one route. What it throws is answered as an error. */
export type Handler = (
  exchange: Exchange,
  params: Parameters,
  query: Parameters,
) => void | Promise<void>;

/** Longest parameter of a path, in characters: a node with the longest target of a symlink, in base64. */
const MAX_PARAMETER = 6 * 1024;

const METHODS = ["GET", "HEAD", "PUT", "POST"] as const;
type Method = (typeof METHODS)[number];

type Routes = ReturnType<typeof createRouter>;

/** Finds the handler of a request. Paths are compared byte for byte. */
export class Router {
  readonly #routes: Routes;
  readonly #prefix: string;

  constructor(
    routes: Routes = createRouter({ maxParamLength: MAX_PARAMETER }),
    prefix: string = "",
  ) {
    this.#routes = routes;
    this.#prefix = prefix;
  }

  /** Returns a router for the paths below a prefix, such as `/below`. They belong to this router as well. */
  under(prefix: string): Router {
    return new Router(this.#routes, this.#prefix + prefix);
  }

  /** Adds a route for `GET` and `HEAD`. */
  get(path: string, handler: Handler): void {
    this.#routes.on(["GET", "HEAD"], this.#prefix + path, () => undefined, handler);
  }

  /** Adds a route for `PUT`. */
  put(path: string, handler: Handler): void {
    this.#routes.on("PUT", this.#prefix + path, () => undefined, handler);
  }

  /** Adds a route for `POST`. */
  post(path: string, handler: Handler): void {
    this.#routes.on("POST", this.#prefix + path, () => undefined, handler);
  }

  /**
   * Answers a request: with 404 for an unknown path, 405 for another method than the path has. At once, where its handler
   * does.
   */
  answer(exchange: Exchange): void | Promise<void> {
    const { method, target } = exchange;
    const route = METHODS.includes(method as Method)
      ? this.#routes.find(method as Method, target)
      : null;
    if (route) return (route.store as Handler)(exchange, route.params, route.searchParams);
    const allowed = METHODS.filter((other) => this.#routes.find(other, target));
    if (allowed.length === 0) exchange.text(404, "There is nothing at this path");
    else {
      const allow = allowed.join(", ");
      exchange.text(405, `Expected one of the methods ${allow}, found ${method}`, { allow });
    }
    return undefined;
  }
}
