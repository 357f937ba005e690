/** What the escape sequences of a line may do to its neighbours, found in its bytes without decoding them. */
import type { Line } from "../block/lines";

const ESC = 0x1b;

/** Finds escape characters line by line; a search goes over a block once, however many lines ask. */
export class EscapeFinder {
  #source: Uint8Array | null = null;
  #at = -1;

  /** Index of the first escape character of a line in its source; -1: it has none. */
  in(line: Line): number {
    if (this.#source !== line.source || this.#at < line.start) {
      this.#source = line.source;
      const at = line.source.indexOf(ESC, line.start);
      this.#at = at < 0 ? Infinity : at;
    }
    return this.#at < line.end ? this.#at : -1;
  }
}

/** Rows that a line, whose first escape character stands at `from`, may go up in all. */
export function rowsUp({ source, end }: Line, from: number): number {
  let rows = 0;
  for (let at = from; at >= 0 && at < end - 1; at = nextEscape(source, at + 1, end)) {
    const kind = source[at + 1];
    // ESC M: reverse index.
    if (kind === 0x4d) rows += 1;
    if (kind !== 0x5b) continue;
    let count = 0;
    let final = at + 2;
    for (; final < end && isParameter(source[final]); final += 1) count = Math.min(9_999, count * 10 + (source[final] ?? 0) - 0x30);
    // CSI A and CSI F: up, and up to the begin of the row.
    if (final < end && (source[final] === 0x41 || source[final] === 0x46)) rows += Math.max(1, count);
  }
  return rows;
}

function nextEscape(source: Uint8Array, from: number, end: number): number {
  for (let at = from; at < end; at += 1) if (source[at] === ESC) return at;
  return -1;
}

function isParameter(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}
