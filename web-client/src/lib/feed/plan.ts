/** Which lines a page reads where closed groups hide some: long hidden ranges are skipped, short ones read and dropped. */
import type { HiddenRange } from "../markers/folds";
import { firstAtLeast } from "../markers/sorted";
import type { Entry, Fold } from "./window";

/** Lines [from, to). */
export interface Span {
  readonly from: number;
  readonly to: number;
}

export interface PagePlan extends Span {
  /** What has to be read, in order. */
  readonly reads: readonly Span[];
  /** Hidden within the page, in order; the last one may reach beyond it. */
  readonly hidden: readonly HiddenRange[];
}

/** A hidden range that is shorter is read and dropped: that takes less time than another call. */
const WORTH_SKIPPING = 2_000;

/** A page of `lines` visible lines that ends before `to`. */
export function planOlder(ranges: readonly HiddenRange[], first: number, to: number, lines: number): PagePlan {
  const hidden: HiddenRange[] = [];
  let next = firstAtLeast(ranges, to, (range) => range.from) - 1;
  let at = to;
  for (let left = lines; left > 0 && at > first; ) {
    const range = ranges[next];
    if (range !== undefined && range.to >= at) {
      hidden.unshift(range);
      at = Math.max(first, range.from);
      next -= 1;
      continue;
    }
    const from = Math.max(first, range?.to ?? first, at - left);
    left -= at - from;
    at = from;
  }
  return { from: at, to, hidden, reads: readsOf(at, to, hidden) };
}

/** A page of `lines` visible lines that begins at `from`. */
export function planNewer(ranges: readonly HiddenRange[], from: number, head: number, lines: number): PagePlan {
  const hidden: HiddenRange[] = [];
  let next = firstAtLeast(ranges, from, (range) => range.from);
  let at = from;
  for (let left = lines; left > 0 && at < head; ) {
    const range = ranges[next];
    if (range !== undefined && range.from <= at) {
      hidden.push(range);
      at = range.to;
      next += 1;
      continue;
    }
    const to = Math.min(head, range?.from ?? head, at + left);
    left -= to - at;
    at = to;
  }
  // The header of a group is never without its fold.
  const range = ranges[next];
  if (range !== undefined && range.from === at) {
    hidden.push(range);
    at = range.to;
  }
  return { from, to: at, hidden, reads: readsOf(from, at, hidden) };
}

function readsOf(from: number, to: number, hidden: readonly HiddenRange[]): Span[] {
  const reads: Span[] = [];
  let at = from;
  for (const range of hidden) {
    if (range.to - range.from < WORTH_SKIPPING && range.to < to && range.from > at) continue;
    if (range.from > at) reads.push({ from: at, to: range.from });
    at = Math.max(at, range.to);
  }
  if (at < to) reads.push({ from: at, to });
  return reads;
}

/** Entries without hidden lines, each hidden range as one fold in its place. */
export function folded(entries: readonly Entry[], hidden: readonly HiddenRange[], streamId: number): Entry[] {
  if (hidden.length === 0) return [...entries];
  const result: Entry[] = [];
  let next = 0;
  const put = (range: HiddenRange): void => {
    const fold: Fold = { kind: "fold", streamId, sequence: range.from, nextSequence: range.to, timeUs: range.headerUs };
    result.push(fold);
  };
  for (const entry of entries) {
    for (let range = hidden[next]; range !== undefined && range.to <= entry.sequence; range = hidden[next]) {
      if (range !== undefined) put(range);
      next += 1;
    }
    const range = hidden[next];
    if (range === undefined || entry.sequence < range.from) result.push(entry);
  }
  for (const range of hidden.slice(next)) put(range);
  return result;
}
