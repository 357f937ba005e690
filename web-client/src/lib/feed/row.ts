/**
 * A row: what the reader sees as one line. Usually one line of the stream; lines that continue each
 * other (flag "partial") stand in one row, and lines that redraw rows above them in the last row that they drew.
 */
import { Channel } from "../../gen/millstream/v1/block_pb";
import { MAX_COLUMNS } from "../ansi/cells";
import { parseLine, type ParsedLine } from "../ansi/parse";
import { PLAIN, type Style } from "../ansi/style";
import type { Line } from "../block/lines";

/** Lines that are not stored any more, in the place where they were. */
export interface GapMark {
  readonly streamId: number;
  readonly sequence: number;
  readonly nextSequence: number;
  readonly message: string;
}

/** What makes of a row more than the one line that it mostly is. */
interface Extent {
  readonly nextSequence: number;
  readonly lines: readonly Line[];
  /** What redraws made of the row, which its own lines do not say; null: it is what its lines say. */
  readonly drawn: Drawing | null;
  /** Lines hidden below this row, in a closed group. */
  readonly hidden: { readonly from: number; readonly to: number } | null;
}

/** A row that lines fill. It says what its first line says: rows are made of every line that arrives, and few are looked at. */
export class LineRow {
  readonly #line: Line;
  /** The style that the lines before left. */
  readonly style: Style;
  readonly #extent: Extent | null;

  constructor(line: Line, style: Style = PLAIN, extent: Extent | null = null) {
    this.#line = line;
    this.style = style;
    this.#extent = extent;
  }

  get kind(): "line" | "notice" {
    return this.#line.channel === Channel.NOTICE ? "notice" : "line";
  }

  get key(): string {
    return `${this.streamId}:${this.sequence}`;
  }

  get streamId(): number {
    return this.#line.streamId;
  }

  /** Sequence of the first line: the row's identity, also in permalinks. */
  get sequence(): number {
    return this.#line.sequence;
  }

  get nextSequence(): number {
    return this.#extent?.nextSequence ?? this.sequence + 1;
  }

  get timeUs(): number {
    return this.#line.timeUs;
  }

  get channel(): Channel {
    return this.#line.channel;
  }

  get lines(): readonly Line[] {
    return this.#extent?.lines ?? [this.#line];
  }

  get lastLine(): Line {
    return this.#extent?.lines.at(-1) ?? this.#line;
  }

  get drawn(): Drawing | null {
    return this.#extent?.drawn ?? null;
  }

  get hidden(): Extent["hidden"] {
    return this.#extent?.hidden ?? null;
  }

  /** Bytes of its text. */
  get bytes(): number {
    if (this.#extent === null) return this.#line.end - this.#line.start;
    return this.#extent.lines.reduce((sum, line) => sum + line.end - line.start, 0);
  }

  /** The same row, but for what changes. */
  with(change: Partial<Extent>): LineRow {
    const { nextSequence, lines, drawn, hidden } = this;
    return new LineRow(this.#line, this.style, { nextSequence, lines, drawn, hidden, ...change });
  }
}

/** One row of several that were drawn as one picture. */
export interface Drawing {
  readonly line: ParsedLine;
  /** Names the picture. */
  readonly picture: number;
  /** The style that the row's lines left. */
  readonly styleAfter: Style;
  /** The column in which the row's text goes on; null: its last line ended. */
  readonly openColumn: number | null;
  /** Some of the lines that drew it are not kept, so that it cannot be drawn again. */
  readonly isSealed: boolean;
  /** It reaches above what is held: with the lines before it would look different. */
  readonly isClipped: boolean;
}

export interface GapRow extends GapMark {
  readonly kind: "gap";
  readonly key: string;
}

export type Row = LineRow | GapRow;

/** Pieces that one row joins at most, each time anew; a longer chain is drawn piece by piece. */
const MAX_JOINED_LINES = 64;

/** Bytes of a row that are decoded to paint it. */
const MAX_PAINTED_BYTES = 131_072;

export function gapRowOf(gap: GapMark): GapRow {
  return { kind: "gap", key: `${gap.streamId}:gap:${gap.sequence}`, ...gap };
}

/** Whether a row's last line did not end. */
export function isOpen({ drawn, lastLine }: LineRow): boolean {
  return drawn === null ? lastLine.partial : drawn.openColumn !== null;
}

/** Whether a row's text goes on with a line, or with the lines of another row. */
export function goesOn(row: Row | undefined, after: Pick<LineRow, "streamId" | "channel" | "sequence">): row is LineRow {
  return (
    row?.kind === "line" &&
    row.hidden === null &&
    isOpen(row) &&
    row.streamId === after.streamId &&
    row.channel === after.channel &&
    row.nextSequence === after.sequence
  );
}

/** Whether one more line can be joined to a row; otherwise it has to be drawn. */
export function canJoin(row: LineRow): boolean {
  return row.drawn === null && row.lines.length < MAX_JOINED_LINES;
}

export function join(row: LineRow, line: Line): LineRow {
  return row.with({ nextSequence: line.sequence + 1, lines: [...row.lines, line] });
}

const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

/** The text of a row as it may be painted, invalid UTF-8 replaced; very long rows are cut. */
export function rowText(row: LineRow): string {
  const { lines } = row;
  const [only] = lines;
  if (lines.length === 1 && only && only.end - only.start <= MAX_PAINTED_BYTES) {
    return decoder.decode(only.source.subarray(only.start, only.end));
  }
  const bytes = new Uint8Array(Math.min(row.bytes, MAX_PAINTED_BYTES));
  let at = 0;
  for (const line of lines) {
    const take = Math.min(line.end - line.start, bytes.length - at);
    bytes.set(line.source.subarray(line.start, line.start + take), at);
    at += take;
  }
  return decoder.decode(bytes);
}

/** Bytes of the text that is painted of a row, about: escape sequences count. */
export function shownBytes(row: LineRow): number {
  return row.drawn === null ? Math.min(row.bytes, MAX_COLUMNS) : row.drawn.line.text.length;
}

/** Bytes that `rowText` leaves out. */
export function cutBytes(row: LineRow): number {
  return row.drawn === null ? Math.max(0, row.bytes - MAX_PAINTED_BYTES) : 0;
}

/** Rows never change once made (a continued row is a new one), so what was parsed stays true. */
const parsedRows = new WeakMap<LineRow, ParsedLine>();

export function parsed(row: LineRow): ParsedLine {
  if (row.drawn !== null) return row.drawn.line;
  let result = parsedRows.get(row);
  if (result === undefined) {
    result = parseLine(rowText(row), row.style);
    parsedRows.set(row, result);
  }
  return result;
}
