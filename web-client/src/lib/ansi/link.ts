/** Addresses that log text may lead to. A log is hostile: whatever could run or read something is no link. */

const SCHEMES = new Set(["http:", "https:", "mailto:"]);

const MAX_LINK = 2_048;

/** The address in its normal form, or null when it must not be followed. */
export function safeLink(address: string): string | null {
  if (address === "" || address.length > MAX_LINK || /[\x00-\x20\x7f-\x9f]/.test(address)) return null;
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  return SCHEMES.has(url.protocol) ? url.href : null;
}
