/**
 * Two runs beside each other, read page by page: at any time a bounded part of both is in memory, however
 * long they are.
 */
import type { Line } from "../block/lines";
import { LineRow, parsed } from "../feed/row";
import { align, type Kind } from "./align";
import { normalise } from "./normalise";

/** Where the lines of one run come from; an empty page is the end. */
export interface LineSource {
  next(): Promise<readonly Line[]>;
}

export interface Side {
  readonly sequence: number;
  readonly text: string;
}

export interface ComparedRow {
  readonly kind: Kind;
  readonly left: Side | null;
  readonly right: Side | null;
}

/** Lines of each run that are looked at together: a line that moved further counts as two differences. */
const WINDOW_LINES = 2_000;

/** Of a window, what is only settled by what follows it stays for the next one. */
const KEEP_LINES = 400;

/** Lines that moved out of their window, at most. */
const MAX_OWED = 4_000;

/** Characters of a line that are kept to show it. */
const MAX_CHARACTERS = 4_096;

interface Held {
  readonly side: Side;
  readonly key: string;
}

export class Comparison {
  readonly #left: Reader;
  readonly #right: Reader;
  /** By key, lines that moved from the left (above 0) or from the right (below 0) into a window that is still to come. */
  readonly #owed = new Map<string, number>();

  constructor(left: LineSource, right: LineSource) {
    this.#left = new Reader(left);
    this.#right = new Reader(right);
  }

  /** Lines of both runs that were looked at. */
  get linesRead(): number {
    return this.#left.read + this.#right.read;
  }

  /** The next rows, in order; null after the last. */
  async next(): Promise<ComparedRow[] | null> {
    await Promise.all([this.#left.fill(WINDOW_LINES), this.#right.fill(WINDOW_LINES)]);
    const [left, right] = [this.#left.held, this.#right.held];
    if (left.length === 0 && right.length === 0) return null;
    const pairs = align(
      left.map(({ key }) => key),
      right.map(({ key }) => key),
    );
    let settled = pairs.length;
    if (!this.#left.isAtEnd || !this.#right.isAtEnd) settled = settledPairs(pairs);
    const rows = pairs.slice(0, settled).flatMap(({ kind, left: l, right: r }) => {
      return this.#settle(kind, (l === null ? null : left[l]) ?? null, (r === null ? null : right[r]) ?? null);
    });
    this.#left.drop(rows.filter((row) => row.left !== null).length);
    this.#right.drop(rows.filter((row) => row.right !== null).length);
    return rows;
  }

  #settle(kind: Kind, left: Held | null, right: Held | null): ComparedRow[] {
    const row = { kind, left: left?.side ?? null, right: right?.side ?? null };
    if (kind === "same") return [row];
    if (kind === "moved") {
      if (left !== null) this.#owe(left.key, 1);
      if (right !== null) this.#owe(right.key, -1);
      return [row];
    }
    const leftMoved = left !== null && this.#isPaid(left.key, -1);
    const rightMoved = right !== null && this.#isPaid(right.key, 1);
    if (!leftMoved && !rightMoved) return [row];
    const rows: ComparedRow[] = [];
    if (left !== null) rows.push({ kind: leftMoved ? "moved" : "left", left: left.side, right: null });
    if (right !== null) rows.push({ kind: rightMoved ? "moved" : "right", left: null, right: right.side });
    return rows;
  }

  #owe(key: string, by: 1 | -1): void {
    const owed = (this.#owed.get(key) ?? 0) + by;
    if (owed === 0) this.#owed.delete(key);
    else this.#owed.set(key, owed);
    const [oldest] = this.#owed.keys();
    if (this.#owed.size > MAX_OWED && oldest !== undefined) this.#owed.delete(oldest);
  }

  /** Whether the other side said before that this line moved here. */
  #isPaid(key: string, side: 1 | -1): boolean {
    if ((this.#owed.get(key) ?? 0) * side <= 0) return false;
    this.#owe(key, side === 1 ? -1 : 1);
    return true;
  }
}

/** How many pairs the lines that follow cannot change: up to the last match that is not too near to the end. */
function settledPairs(pairs: readonly { readonly kind: Kind }[]): number {
  const limit = Math.max(1, pairs.length - KEEP_LINES);
  for (let at = limit; at > 0; at -= 1) if (pairs[at - 1]?.kind === "same") return at;
  return limit;
}

class Reader {
  readonly #source: LineSource;
  held: Held[] = [];
  isAtEnd = false;
  read = 0;

  constructor(source: LineSource) {
    this.#source = source;
  }

  async fill(count: number): Promise<void> {
    while (!this.isAtEnd && this.held.length < count) {
      const lines = await this.#source.next();
      this.isAtEnd = lines.length === 0;
      this.read += lines.length;
      for (const line of lines) {
        const { text } = parsed(new LineRow(line));
        this.held.push({ side: { sequence: line.sequence, text: text.slice(0, MAX_CHARACTERS) }, key: normalise(text) });
      }
    }
  }

  drop(count: number): void {
    this.held = this.held.slice(count);
  }
}

/** A row that says something about how the runs differ. */
export function isDifference(row: ComparedRow): boolean {
  return row.kind !== "same" && row.kind !== "moved";
}
