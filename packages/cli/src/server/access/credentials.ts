/**
 * Returns the token in an `authorization` header: that of `Bearer`, or the password of `Basic`, whose user name does not
 * matter. `undefined` for a header without one.
 */
export function presentedToken(authorization: string): string | undefined {
  const [, scheme, value] = /^(bearer|basic) +([A-Za-z0-9._~+/=-]+) *$/i.exec(authorization) ?? [];
  if (scheme?.toLowerCase() === "bearer") return value;
  if (scheme === undefined) return undefined;
  const [, password] = /^[^:]*:(.*)$/s.exec(Buffer.from(value!, "base64").toString()) ?? [];
  return password;
}
