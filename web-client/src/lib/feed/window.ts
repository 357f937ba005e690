/**
 * The rows that the browser holds: a bounded run of the log. Rows are added at either end and evicted at
 * the other; what was evicted can be read again.
 */
import type { Line } from "../block/lines";
import { continues, gapRowOf, join, rowBytes, rowOf, type GapMark, type Row } from "./row";

/** Rows that are held at most. 20,000 rows of 20 px stay far below every browser's element height. */
export const MAX_ROWS = 20_000;

/** Text that is held at most, bytes; it is reached first where lines are very long. */
export const MAX_TEXT_BYTES = 64 * 1_048_576;

export type Entry = Line | GapMark;

export class RowWindow {
  readonly #maxRows: number;
  readonly #maxBytes: number;
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
  }

  /** Adds entries at the end; the oldest rows make room. Returns the rows that had to go. */
  append(entries: readonly Entry[]): Row[] {
    for (const entry of entries) {
      const row = toRow(entry);
      this.#bytes += bytesOf(row);
      const last = this.#rows.at(-1);
      if (row.kind !== "gap" && continues(last, row)) this.#rows[this.#rows.length - 1] = join(last, row);
      else this.#rows.push(row);
    }
    let excess = 0;
    for (; this.#isOver(excess); excess += 1) this.#bytes -= bytesOf(this.#rows[excess]);
    return excess > 0 ? this.#rows.splice(0, excess) : [];
  }

  /** Adds entries at the beginning; the newest rows make room. Returns the rows that had to go. */
  prepend(entries: readonly Entry[]): Row[] {
    const before = new RowWindow(Infinity, Infinity);
    before.append(entries);
    const head = before.#rows;
    this.#bytes += before.#bytes;
    const first = this.#rows[0];
    const last = head.at(-1);
    if (first !== undefined && first.kind !== "gap" && continues(last, first)) {
      head[head.length - 1] = join(last, first);
      this.#rows.shift();
    }
    this.#rows = head.concat(this.#rows);
    let excess = 0;
    for (; this.#isOver(excess); excess += 1) this.#bytes -= bytesOf(this.#rows.at(-1 - excess));
    return excess > 0 ? this.#rows.splice(this.#rows.length - excess) : [];
  }

  /** Index of the row that holds a line; -1 when it is not in the window. */
  indexOf(streamId: number, sequence: number): number {
    return this.#rows.findIndex(
      (row) => row.streamId === streamId && row.sequence <= sequence && sequence < row.nextSequence,
    );
  }

  #isOver(evicted: number): boolean {
    const rows = this.#rows.length - evicted;
    return rows > this.#maxRows || (rows > 1 && this.#bytes > this.#maxBytes);
  }
}

function bytesOf(row: Row | undefined): number {
  return row === undefined || row.kind === "gap" ? 0 : rowBytes(row);
}

function toRow(entry: Entry): Row {
  return "nextSequence" in entry ? gapRowOf(entry) : rowOf(entry);
}
