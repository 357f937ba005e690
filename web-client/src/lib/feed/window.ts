/**
 * The rows that the browser holds: a bounded run of the log. Rows are added at either end and evicted at
 * the other; what was evicted can be read again.
 */
import { Channel } from "../../gen/millstream/v1/block_pb";
import { styleAfter } from "../ansi/parse";
import { MAX_HEIGHT } from "../ansi/screen";
import { PLAIN, sameStyle, type Style } from "../ansi/style";
import type { Line } from "../block/lines";
import { EscapeFinder, rowsUp } from "./escapes";
import { Picture } from "./picture";
import { canJoin, gapRowOf, goesOn, isOpen, join, LineRow, rowText, type GapMark, type Row } from "./row";

/** Rows that are held at most. 20,000 rows of 20 px stay far below every browser's element height. */
export const MAX_ROWS = 20_000;

/**
 * Rows that are held while the view follows: some fifty screens, of which a reader who stops finds everything in place. At
 * 50,000 lines a second each row lives for a moment, and the collector of the browser copies all that live at that moment:
 * with 20,000 of them it took ten milliseconds each time, more than half a frame.
 */
export const FOLLOWED_ROWS = 2_000;

/** Text that is held at most, bytes; it is reached first where lines are very long. */
export const MAX_TEXT_BYTES = 64 * 1_048_576;

/** Lines of a closed group: they stand behind the header in the line before. */
export interface Fold {
  readonly kind: "fold";
  readonly streamId: number;
  readonly sequence: number;
  readonly nextSequence: number;
  /** Capture time of the header, which the fold shares. */
  readonly timeUs: number;
}

export type Entry = Line | GapMark | Fold;

export function isFold(entry: Entry): entry is Fold {
  return "kind" in entry && entry.kind === "fold";
}

/** What the lines of one stream have left for the next one. */
interface Pen {
  style: Style;
  picture: Picture | null;
  /** The last line had no newline: the next one may go on in its row, wherever that stands among other streams' rows. */
  isOpen: boolean;
}

export class RowWindow {
  readonly #maxRows: number;
  readonly #maxBytes: number;
  readonly #escapes = new EscapeFinder();
  readonly #pens = new Map<number, Pen>();
  #rows: Row[] = [];
  #bytes = 0;

  constructor(maxRows: number = MAX_ROWS, maxBytes: number = MAX_TEXT_BYTES) {
    this.#maxRows = maxRows;
    this.#maxBytes = maxBytes;
  }

  get rows(): readonly Row[] {
    return this.#rows;
  }

  /** Whether so many more entries push nothing out. */
  hasRoomFor(entries: number): boolean {
    return this.#rows.length + entries <= this.#maxRows && this.#bytes < this.#maxBytes / 2;
  }

  clear(): void {
    this.#rows = [];
    this.#bytes = 0;
    this.#pens.clear();
  }

  /** Adds entries at the end and keeps the newest `most` rows at most; returns the rows that had to go. */
  append(entries: readonly Entry[], most = this.#maxRows): Row[] {
    const touched = new Set<Picture>();
    for (const entry of entries) {
      if (!("source" in entry)) this.#mark(entry);
      else if (!this.#redraw(entry, touched)) this.#add(entry);
    }
    for (const picture of touched) this.#show(picture);
    let excess = 0;
    for (; this.#isOver(excess, most); excess += 1) this.#bytes -= bytesOf(this.#rows[excess]);
    return excess > 0 ? this.#evictOldest(excess) : [];
  }

  /** Adds entries at the beginning; the newest rows make room. Returns the rows that had to go. */
  prepend(entries: readonly Entry[]): Row[] {
    const before = new RowWindow(Infinity, Infinity);
    before.append(entries);
    const settled = before.#drawAgain(this.#rows);
    const later = new Set(this.#rows.slice(settled).flatMap((row) => (row.kind === "notice" ? [] : [row.streamId])));
    for (const [streamId, pen] of before.#pens) if (!later.has(streamId)) this.#pens.set(streamId, pen);
    this.#rows = before.#rows.concat(this.#rows.slice(settled));
    this.#bytes = this.#rows.reduce((sum, row) => sum + bytesOf(row), 0);
    let excess = 0;
    for (; this.#isOver(excess, this.#maxRows); excess += 1) this.#bytes -= bytesOf(this.#rows.at(-1 - excess));
    if (excess === 0) return [];
    this.#pens.clear();
    return this.#rows.splice(this.#rows.length - excess);
  }

  /** Index of the row that holds a line; -1 when it is not in the window. */
  indexOf(streamId: number, sequence: number): number {
    return this.#rows.findIndex(
      (row) => row.streamId === streamId && row.sequence <= sequence && sequence < row.nextSequence,
    );
  }

  /** A line that changes nothing above it. */
  #add(line: Line): void {
    const pen = this.#pen(line.streamId);
    const row = new LineRow(line, pen.style);
    const at = this.#openRow(pen, line);
    const open = this.#rows[at];
    if (goesOn(open, line)) this.#rows[at] = join(open, line);
    else this.#rows.push(row);
    this.#bytes += line.end - line.start;
    pen.isOpen = line.partial;
    if (row.kind === "line" && this.#escapes.in(line) >= 0) pen.style = styleAfter(rowText(row), pen.style);
  }

  /** Index of the row in which a line goes on; -1: it begins one. */
  #openRow(pen: Pen, line: Pick<LineRow, "streamId" | "channel" | "sequence">): number {
    if (!pen.isOpen) return -1;
    const at = this.#rows.findLastIndex((row) => row.streamId === line.streamId);
    return goesOn(this.#rows[at], line) ? at : -1;
  }

  /**
   * Draws a line that goes up, that comes while the cursor is above the end, or that goes on in a row that cannot be
   * joined any more; false when it is none of these.
   */
  #redraw(line: Line, touched: Set<Picture>): boolean {
    if (line.channel === Channel.NOTICE) return false;
    const pen = this.#pen(line.streamId);
    const escape = this.#escapes.in(line);
    const up = escape < 0 ? 0 : rowsUp(line, escape);
    const open = pen.picture === null ? this.#rows[this.#openRow(pen, line)] : undefined;
    const continues = goesOn(open, line);
    if (up === 0 && pen.picture === null && !(continues && !canJoin(open))) return false;
    const picture = pen.picture ?? new Picture(pen.style);
    const lacking = Math.min(up, MAX_HEIGHT) + Number(continues) - picture.rowsAbove;
    if (lacking > 0) picture.takeIn(this.#rowsAbove(line.streamId, picture.top, lacking));
    picture.draw(line);
    pen.style = picture.style;
    pen.isOpen = line.partial;
    pen.picture = picture.isDone ? null : picture;
    // What is done may be taken in by the next one; what goes on is shown once for the whole batch.
    if (picture.isDone) {
      touched.delete(picture);
      this.#show(picture);
    } else {
      touched.add(picture);
      if (picture.rowsAbove > 2 * MAX_HEIGHT) this.#show(picture);
    }
    return true;
  }

  /** The nearest rows of a stream above `top` (or above the end), in order. Gaps and closed groups end them. */
  #rowsAbove(streamId: number, top: LineRow | null, count: number): LineRow[] {
    const rows: LineRow[] = [];
    let at = this.#rows.length - 1;
    if (top !== null) while (at >= 0 && this.#rows[at]?.key !== top.key) at -= 1;
    for (at = top === null ? at : at - 1; at >= 0 && rows.length < count; at -= 1) {
      const row = this.#rows[at];
      if (row === undefined || row.streamId !== streamId || row.kind === "notice") continue;
      if (row.kind === "gap" || row.hidden !== null) break;
      rows.unshift(row);
    }
    return rows;
  }

  /** Puts a picture's rows where they stand, and those that are new at the end. */
  #show(picture: Picture): void {
    const rows = picture.rows();
    for (let at = this.#rows.length - 1; at >= 0 && rows.size > 0; at -= 1) {
      const row = this.#rows[at];
      const drawn = row === undefined ? undefined : rows.get(row.key);
      if (drawn === undefined) {
        // Rows of a picture stand together, but for those of other streams.
        if (row?.streamId === picture.top?.streamId && row?.kind === "line" && row.sequence < (picture.top?.sequence ?? 0)) break;
        continue;
      }
      this.#bytes += bytesOf(drawn) - bytesOf(row);
      this.#rows[at] = drawn;
      rows.delete(drawn.key);
    }
    const newest = this.#rows.findLast((row) => row.streamId === picture.top?.streamId && row.kind === "line");
    for (const row of rows.values()) {
      // What is older than the newest row was evicted.
      if (newest !== undefined && row.sequence < newest.sequence) continue;
      this.#rows.push(row);
      this.#bytes += bytesOf(row);
    }
    picture.release();
  }

  /** A gap, or a closed group: what comes after does not go on with what was before. */
  #mark(entry: GapMark | Fold): void {
    this.#pens.set(entry.streamId, { style: PLAIN, picture: null, isOpen: false });
    if (!isFold(entry)) {
      this.#rows.push(gapRowOf(entry));
      return;
    }
    const at = this.#rows.findLastIndex((row) => row.streamId === entry.streamId);
    const header = this.#rows[at];
    const { sequence: from, nextSequence: to } = entry;
    if (header !== undefined && header.kind !== "gap") this.#rows[at] = header.with({ nextSequence: to, hidden: { from, to } });
    else this.#rows.push(gapRowOf({ streamId: entry.streamId, sequence: from, nextSequence: to, message: "the header of their closed group is not stored any more" }));
  }

  /**
   * Takes over rows that were drawn without the lines before them, as long as these change them. Returns the number
   * of rows that were taken over.
   */
  #drawAgain(rows: readonly Row[]): number {
    const pictures = new Map<number, number | undefined>();
    let at = 0;
    while (at < rows.length && !this.#isSettled(rows, at, pictures)) {
      const row = rows[at];
      at += 1;
      if (row === undefined) break;
      if (row.kind === "gap") {
        this.append([row]);
        continue;
      }
      this.append(row.lines);
      if (row.hidden !== null) {
        this.append([{ kind: "fold", streamId: row.streamId, sequence: row.hidden.from, nextSequence: row.hidden.to, timeUs: row.timeUs }]);
      }
      pictures.set(row.streamId, row.drawn?.picture);
    }
    return at;
  }

  /** Whether every stream's next row was drawn from where its lines so far have led. */
  #isSettled(rows: readonly Row[], at: number, pictures: ReadonlyMap<number, number | undefined>): boolean {
    for (const [streamId, pen] of this.#pens) {
      const next = rows.find((row, index) => index >= at && row.streamId === streamId && row.kind !== "notice");
      if (next === undefined || next.kind === "gap") continue;
      const { drawn } = next;
      if (drawn !== null && drawn.picture === pictures.get(streamId)) return false;
      // What cannot be drawn again stays as it is.
      if (drawn !== null && rows.slice(at).some((row) => row.kind === "line" && row.drawn?.isSealed === true && row.drawn.picture === drawn.picture)) continue;
      if (pen.picture !== null || drawn?.isClipped || !sameStyle(pen.style, next.style)) return false;
      if (this.#openRow(pen, next) >= 0) return false;
    }
    return true;
  }

  #evictOldest(count: number): Row[] {
    const evicted = this.#rows.splice(0, count);
    const last = evicted.at(-1);
    const picture = last?.kind === "line" ? last.drawn?.picture : undefined;
    if (picture === undefined) return evicted;
    const at = this.#rows.findIndex((row, index) => index < 4 * MAX_HEIGHT && row.kind === "line" && row.drawn?.picture === picture);
    const row = this.#rows[at];
    if (row?.kind === "line" && row.drawn !== null) this.#rows[at] = row.with({ drawn: { ...row.drawn, isClipped: true } });
    return evicted;
  }

  #pen(streamId: number): Pen {
    let pen = this.#pens.get(streamId);
    if (pen === undefined) {
      const last = this.#rows.findLast((row) => row.streamId === streamId && row.kind !== "notice");
      let style: Style = PLAIN;
      if (last?.kind === "line" && last.hidden === null) style = last.drawn?.styleAfter ?? styleAfter(rowText(last), last.style);
      pen = { style, picture: null, isOpen: last?.kind === "line" && isOpen(last) };
      this.#pens.set(streamId, pen);
    }
    return pen;
  }

  #isOver(evicted: number, most: number): boolean {
    const rows = this.#rows.length - evicted;
    return rows > most || (rows > 1 && this.#bytes > this.#maxBytes);
  }
}

function bytesOf(row: Row | undefined): number {
  return row === undefined || row.kind === "gap" ? 0 : row.bytes;
}
