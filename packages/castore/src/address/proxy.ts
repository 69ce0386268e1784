import { getProxyForUrl } from "proxy-from-env";
import { addressError } from "./service-address.ts";

/** Where a proxy for URLs of HTTPS is named. */
const VARIABLES = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/**
 * Returns the proxy through which a URL is reached, as `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` in the
 * environment say, in either case; `undefined` where it is reached directly. A proxy without a scheme is one of HTTP,
 * and a host in `no_proxy` covers its subdomains, as for curl.
 *
 * @throws CastoreError `invalid_argument` for a proxy that is not one of HTTP
 */
export function proxyFor(url: string): string | undefined {
  const proxy = getProxyForUrl(url);
  if (proxy === "" || isInDomainWithout(url)) return undefined;
  const [, bare] = /^https:\/\/(.*)/.exec(proxy) ?? []; // the library gives it the scheme of the URL
  if (VARIABLES.some((name) => bare && process.env[name] === bare)) return `http://${bare}`;
  if (/^https?:\/\//.test(proxy) && URL.canParse(proxy)) return proxy;
  const shown = proxy.replace(/\/\/[^/]*@/, "//...@"); // without a password
  throw addressError(
    url,
    `expected a proxy "http://host:port" in the environment, found "${shown}"`,
  );
}

/** Tells whether `no_proxy` names a domain that the host of a URL is in. */
function isInDomainWithout(text: string): boolean {
  const url = new URL(text);
  const labels = url.hostname.split(".");
  if (/^[\d.]+$|:/.test(url.hostname)) return false; // an IP address is in no domain
  for (let i = 1; i < labels.length; i++) {
    url.hostname = labels.slice(i).join(".");
    if (getProxyForUrl(url.href) === "") return true;
  }
  return false;
}
