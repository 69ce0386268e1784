const UNKNOWN_AUTHORITY =
  "no authority that is known here has signed the certificate of the server; name it with tls_ca";

/** What is told of failures that a user can mend, by the codes that Node.js gives them. */
const REASONS: Readonly<Record<string, string>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: UNKNOWN_AUTHORITY,
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_AUTHORITY,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_AUTHORITY,
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    "the server asks for a certificate of the client; name one with tls_cert and tls_key",
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA:
    "no authority that the server knows has signed the certificate in tls_cert",
  ERR_SSL_WRONG_VERSION_NUMBER: "the server does not speak TLS there; name it with grpc+http",
};

/** Returns why TLS has failed, and what to do about it; `undefined` for errors that are not of TLS. */
export function tlsFailure(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, reason } = error as Error & { code?: unknown; reason?: string };
  if (typeof code !== "string") return undefined;
  return REASONS[code] ?? (code.startsWith("ERR_SSL_") ? `TLS failed: ${reason}` : undefined);
}
