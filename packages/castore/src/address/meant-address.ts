import { nearestOf } from "../model/nearest.ts";

/** Schemes whose addresses have a path and no host, in the order in which a bare path is taken for one of them. */
const LOCAL = ["pack", "sqlite", "file", "objectstore+file", "grpc+unix"];

/**
 * Returns what was probably meant by an address that cannot be used, for a message: `; did you mean "pack:///tmp"?`. Empty
 * if nothing comes to mind.
 *
 * @param shown the address without anything secret
 * @param schemes the schemes that are valid
 */
export function suggestAddress(shown: string, schemes: readonly string[]): string {
  const meant = meantAddresses(shown, schemes).filter((address) => address !== shown);
  if (meant.length === 0) return "";
  return `; did you mean ${meant.map((address) => JSON.stringify(address)).join(" or ")}?`;
}

function meantAddresses(shown: string, schemes: readonly string[]): string[] {
  const [, found, slashes = "", rest = ""] = /^([A-Za-z][\w+.-]*):(\/*)(.*)$/s.exec(shown) ?? [];
  if (found === undefined) {
    const local = LOCAL.filter((scheme) => schemes.includes(scheme)).slice(0, 1);
    if (shown.startsWith("/")) return local.map((scheme) => `${scheme}://${shown}`);
    const isHost = /^[\w-]+(\.[\w-]+)+(:\d+)?(\/.*)?$/.test(shown);
    return isHost && schemes.includes("https") ? [`https://${shown}`] : [];
  }
  if (slashes === "" && /^\d+$/.test(rest) && !schemes.includes(found)) {
    return schemes.includes("grpc+http") ? [`grpc+http://${shown}`] : []; // a host and a port
  }
  if (rest === "" || slashes === "") return [];
  return meantSchemes(found.toLowerCase(), schemes).map((scheme) =>
    LOCAL.includes(scheme) ? `${scheme}:///${rest}` : `${scheme}://${rest}`,
  );
}

function meantSchemes(found: string, schemes: readonly string[]): string[] {
  if (schemes.includes(found)) return [found];
  const longer = schemes.filter((scheme) => scheme.endsWith(`+${found}`));
  if (longer.length > 0) return longer;
  const nearest = nearestOf(found, schemes);
  if (nearest !== undefined) return [nearest];
  return schemes.filter((scheme) => scheme.startsWith(`${found}+http`));
}
