/**
 * Places in the text of a line that lead somewhere: addresses, and `path:line:column` where a template says where
 * sources are shown. The text is hostile: what it says is data within an address, never the address's kind.
 */
import { safeLink } from "../ansi/link";

/** Characters [from, to) of a text lead to `href`. */
export interface Link {
  readonly from: number;
  readonly to: number;
  readonly href: string;
}

/** Text beyond is not looked through. */
const MAX_TEXT = 16_384;
const MAX_LINKS = 64;

const ADDRESS = /\bhttps?:\/\/[^\s<>"'`{}|\\^[\]\x00-\x1f]+/g;
const PLACE = /(?<![\w/\\.:@-])((?:\.{0,2}[/\\]|[A-Za-z]:[/\\])?(?:[\w.@+-]{1,255}[/\\]){0,40}[\w.@+-]{0,255}\.[A-Za-z]\w{0,9}):([1-9]\d{0,7})(?::([1-9]\d{0,5}))?(?![\w/\\])/g;

/** Where a place in a source leads; null when that is not configured. */
export type PlaceLink = (path: string, line: number, column: number | null) => string | null;

export function linksIn(text: string, placeLink: PlaceLink | null): Link[] {
  const looked = text.length > MAX_TEXT ? text.slice(0, MAX_TEXT) : text;
  const links: Link[] = [];
  if (looked.includes("://")) {
    for (const match of looked.matchAll(ADDRESS)) {
      if (links.length >= MAX_LINKS) break;
      const address = withoutTail(match[0]);
      const href = safeLink(address);
      if (href !== null) links.push({ from: match.index, to: match.index + address.length, href });
    }
  }
  if (placeLink === null || !looked.includes(":")) return links;
  for (const match of looked.matchAll(PLACE)) {
    if (links.length >= MAX_LINKS) break;
    const [whole, path = "", line, column] = match;
    // `name.ext:80` alone may as well be a host and its port.
    if (column === undefined && !/[/\\]/.test(path)) continue;
    const [from, to] = [match.index, match.index + whole.length];
    if (links.some((link) => link.from < to && from < link.to)) continue;
    const href = placeLink(path, Number(line), column === undefined ? null : Number(column));
    if (href !== null) links.push({ from, to, href });
  }
  return links.sort((a, b) => a.from - b.from);
}

/** Punctuation after an address belongs to the sentence, and a bracket to the address only where it opened there. */
function withoutTail(address: string): string {
  let end = address.length;
  for (; end > 0; end -= 1) {
    const last = address.charAt(end - 1);
    if (last === ")") {
      const part = address.slice(0, end);
      if (part.split("(").length >= part.split(")").length) break;
    } else if (!/[.,;:!?*]/.test(last)) break;
  }
  return address.slice(0, end);
}
