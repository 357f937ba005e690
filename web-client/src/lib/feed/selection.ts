/**
 * A selection of text in the rows. Rows that are out of view are not painted, so that what is copied comes from the
 * rows themselves: what a terminal shows, without line numbers and escape sequences.
 */
import { parsed, rowText, type Row } from "./row";

/** A place in the text of a row. */
export interface TextPlace {
  readonly key: string;
  readonly offset: number;
}

export function copiedText(row: Row): string {
  if (row.kind === "gap") return "";
  return row.kind === "notice" ? rowText(row) : parsed(row).text;
}

/** The text between two places, in whatever order; null when one of them is not among the rows. */
export function textBetween(rows: readonly Row[], anchor: TextPlace, focus: TextPlace): string | null {
  const [anchorAt, focusAt] = [anchor, focus].map(({ key }) => rows.findIndex((row) => row.key === key));
  if (anchorAt === undefined || focusAt === undefined || anchorAt < 0 || focusAt < 0) return null;
  const isForward = anchorAt < focusAt || (anchorAt === focusAt && anchor.offset <= focus.offset);
  const [first, last] = isForward ? [anchorAt, focusAt] : [focusAt, anchorAt];
  const [from, to] = isForward ? [anchor.offset, focus.offset] : [focus.offset, anchor.offset];
  const texts = rows.slice(first, last + 1).map(copiedText);
  const end = texts.length - 1;
  texts[end] = (texts[end] ?? "").slice(0, to);
  texts[0] = (texts[0] ?? "").slice(from);
  return texts.join("\n");
}
