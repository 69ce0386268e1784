/** Keys of addresses whose values can be shown: none of them is a secret. */
const SHOWN = new Set([
  ...["zstd_level", "avg_chunk_size", "max_pack_size", "mode", "priority", "capacity", "region"],
  ...["near_read_timeout_ms", "near_write_timeout_ms", "timeout_ms", "keepalive_ms", "retry_ms"],
  ...["token_file", "keyfile", "tls_ca", "tls_cert", "tls_key", "trusted-public-keys"],
]);

/** Keys of addresses whose values are addresses. */
const NESTED = new Set([
  "near",
  "far",
  "local",
  "remote",
  "inner",
  "blob_service",
  "directory_service",
]);

/** What stands for a secret. */
const MASK = "***";

/** Returns an address with a mask in place of all that may be secret: credentials, and values of keys. */
export function maskAddress(text: string): string {
  const [, scheme = "", rest = text] = /^([a-z][a-z0-9+.-]*:\/\/)(.*)$/s.exec(text) ?? [];
  const [beforeFragment, ...fragment] = rest.split("#");
  const [place = "", ...query] = beforeFragment!.split("?");
  const shown = scheme + place.replace(/^.*@/s, `${MASK}@`);
  const pairs = query
    .join("?")
    .split("&")
    .filter((pair) => pair !== "");
  const masked = pairs.map(maskPair).join("&");
  return shown + (masked && `?${masked}`) + (fragment.length > 0 ? `#${MASK}` : "");
}

function maskPair(pair: string): string {
  const [key = "", ...rest] = pair.split("=");
  const value = rest.join("=");
  if (SHOWN.has(key)) return pair;
  if (!NESTED.has(key)) return `${key}=${MASK}`;
  try {
    return `${key}=${maskAddress(decodeURIComponent(value))}`;
  } catch {
    return `${key}=${MASK}`;
  }
}
