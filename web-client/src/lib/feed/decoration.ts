/** What the outline says of a row: whether it is the header of a group, within groups, or something pointed out. */
import type { Group, Note } from "../markers/outline";
import { parsed, type Row } from "./row";
import type { Structure } from "./structure";

export interface Header {
  readonly group: Group;
  readonly title: string;
  readonly isFolded: boolean;
  readonly canFold: boolean;
  /** Lines below the header. */
  readonly lines: number;
  readonly errors: number;
  readonly warnings: number;
  readonly durationMs: number | null;
  readonly isOpenEnded: boolean;
}

export interface Decoration {
  /** Groups around the row. */
  readonly depth: number;
  readonly header: Header | null;
  readonly note: Note | null;
  /** The row only says that a group ends. */
  readonly isCloser: boolean;
}

/** Markers of an end that are seen; those of other dialects erase themselves. */
const END_MARKER = /^[\d\w:.-]*\s*(?:::endgroup::|##\[endgroup\]|##teamcity\[\w+\s)/;

const NONE: Decoration = { depth: 0, header: null, note: null, isCloser: false };

export function decorationOf(row: Row, structure: Structure, head: number): Decoration {
  const { outline } = structure;
  if (row.kind !== "line" || (outline.groups.length === 0 && outline.notes.length === 0)) return NONE;
  const group = outline.startingAt(row.sequence);
  const around = outline.around(row.sequence);
  return {
    depth: Math.max(0, around.length - (group === null ? 0 : 1)),
    header: group === null ? null : headerOf(group, structure, head),
    note: outline.noteAt(row.sequence),
    isCloser: group === null && outline.isCloser(row.sequence) && END_MARKER.test(parsed(row).text),
  };
}

export function headerOf(group: Group, { outline, folds }: Structure, head: number): Header {
  const end = group.end ?? head;
  return {
    group,
    title: group.title,
    isFolded: folds.isFolded(group),
    canFold: folds.canFold(group),
    lines: Math.max(0, end - group.start - 1),
    errors: outline.errorsWithin(group.start, end),
    warnings: outline.warningsWithin(group.start, end),
    durationMs: group.durationMs,
    isOpenEnded: group.end === null,
  };
}

/**
 * Headers that stay in view above the rows: of the groups that the first rows in view are in. `rowBelow` gives the row
 * that stands below so many headers.
 */
export function stickyHeaders(rowBelow: (headers: number) => Row | undefined, structureOf: (streamId: number) => Structure, limit: number): { streamId: number; group: Group }[] {
  const sticky: { streamId: number; group: Group }[] = [];
  while (sticky.length < limit) {
    const row = rowBelow(sticky.length);
    if (row === undefined || row.kind === "gap") break;
    // Of the groups around the first row that the headers so far leave uncovered, the next one in depth.
    const group = structureOf(row.streamId).outline.around(row.sequence)[sticky.length];
    if (group === undefined || group.start >= row.sequence || (sticky.length > 0 && sticky[0]?.streamId !== row.streamId)) break;
    sticky.push({ streamId: row.streamId, group });
  }
  return sticky;
}
