/** The spans of a line, cut where links begin and end. */
import type { ParsedLine } from "../ansi/parse";
import type { Style } from "../ansi/style";
import { linksIn, type PlaceLink } from "./find";

export interface Piece {
  readonly text: string;
  readonly style: Style;
  readonly href: string | null;
}

export function piecesOf(line: ParsedLine, placeLink: PlaceLink | null): Piece[] {
  const links = linksIn(line.text, placeLink);
  const pieces: Piece[] = [];
  let at = 0;
  let next = 0;
  for (const { text, style } of line.spans) {
    const end = at + text.length;
    let from = at;
    while (from < end) {
      while ((links[next]?.to ?? Infinity) <= from) next += 1;
      const link = links[next];
      const isLinked = link !== undefined && link.from <= from;
      const to = Math.min(end, isLinked ? link.to : (link?.from ?? Infinity));
      // A link that the program made itself wins over one that its text looks like.
      pieces.push({ text: text.slice(from - at, to - at), style, href: style.link ?? (isLinked ? link.href : null) });
      from = to;
    }
    at = end;
  }
  return pieces;
}
