/**
 * Puts two runs of lines beside each other: which lines are the same, which are on one side only, and which
 * only stand elsewhere. Lines that occur once on either side are the anchors (patience diff), since those of
 * a log say most; what lies between anchors is compared line by line where it is small.
 */

export type Kind = "same" | "changed" | "left" | "right" | "moved";

/** A pair of indices; null where a side has nothing. */
export interface Pair {
  readonly kind: Kind;
  readonly left: number | null;
  readonly right: number | null;
}

/** Cells of the table that compares what lies between two anchors. */
const MAX_CELLS = 90_000;

/** Aligns lines by their keys, in order. */
export function align(left: readonly string[], right: readonly string[]): Pair[] {
  const matches = matchesOf(left, right, { left: 0, leftEnd: left.length, right: 0, rightEnd: right.length });
  return markMoved(fill(matches, left.length, right.length), left, right);
}

interface Range {
  readonly left: number;
  readonly leftEnd: number;
  readonly right: number;
  readonly rightEnd: number;
}

type Match = readonly [left: number, right: number];

function matchesOf(left: readonly string[], right: readonly string[], range: Range): Match[] {
  const found: Match[] = [];
  let { left: l, right: r, leftEnd, rightEnd } = range;
  while (l < leftEnd && r < rightEnd && left[l] === right[r]) found.push([l++, r++]);
  const tail: Match[] = [];
  while (leftEnd > l && rightEnd > r && left[leftEnd - 1] === right[rightEnd - 1]) tail.push([--leftEnd, --rightEnd]);
  if (l < leftEnd && r < rightEnd) found.push(...between(left, right, { left: l, leftEnd, right: r, rightEnd }));
  return found.concat(tail.reverse());
}

function between(left: readonly string[], right: readonly string[], range: Range): Match[] {
  const anchors = anchorsOf(left, right, range);
  if (anchors.length === 0) return small(left, right, range);
  const found: Match[] = [];
  let { left: l, right: r } = range;
  for (const [atLeft, atRight] of anchors) {
    found.push(...matchesOf(left, right, { left: l, leftEnd: atLeft, right: r, rightEnd: atRight }), [atLeft, atRight]);
    l = atLeft + 1;
    r = atRight + 1;
  }
  return found.concat(matchesOf(left, right, { left: l, leftEnd: range.leftEnd, right: r, rightEnd: range.rightEnd }));
}

/** Lines that occur once on either side, as many of them as stand in the same order. */
function anchorsOf(left: readonly string[], right: readonly string[], range: Range): Match[] {
  const once = (lines: readonly string[], from: number, to: number): Map<string, number> => {
    const places = new Map<string, number>();
    for (let at = from; at < to; at += 1) {
      const line = lines[at] ?? "";
      places.set(line, places.has(line) ? -1 : at);
    }
    return places;
  };
  const onRight = once(right, range.right, range.rightEnd);
  const pairs: Match[] = [];
  for (const [line, at] of once(left, range.left, range.leftEnd)) {
    const other = onRight.get(line) ?? -1;
    if (at >= 0 && other >= 0) pairs.push([at, other]);
  }
  return longestIncreasing(pairs.sort((a, b) => a[0] - b[0]));
}

/** The longest sub-sequence whose right indices grow. */
function longestIncreasing(pairs: readonly Match[]): Match[] {
  /** By length, the index of the pair that ends the best sub-sequence of that length. */
  const ends: number[] = [];
  const before: number[] = [];
  pairs.forEach(([, right], at) => {
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((pairs[ends[middle] ?? 0]?.[1] ?? 0) < right) low = middle + 1;
      else high = middle;
    }
    before[at] = low > 0 ? (ends[low - 1] ?? -1) : -1;
    ends[low] = at;
  });
  const chosen: Match[] = [];
  for (let at = ends.at(-1) ?? -1; at >= 0; at = before[at] ?? -1) {
    const pair = pairs[at];
    if (pair) chosen.push(pair);
  }
  return chosen.reverse();
}

/** The longest common sub-sequence, where the table is small enough; else nothing is taken for the same. */
function small(left: readonly string[], right: readonly string[], range: Range): Match[] {
  const height = range.leftEnd - range.left;
  const width = range.rightEnd - range.right;
  if (height * width > MAX_CELLS) return [];
  const lengths = new Uint16Array((height + 1) * (width + 1));
  const cell = (l: number, r: number): number => l * (width + 1) + r;
  for (let l = height - 1; l >= 0; l -= 1) {
    for (let r = width - 1; r >= 0; r -= 1) {
      lengths[cell(l, r)] =
        left[range.left + l] === right[range.right + r]
          ? (lengths[cell(l + 1, r + 1)] ?? 0) + 1
          : Math.max(lengths[cell(l + 1, r)] ?? 0, lengths[cell(l, r + 1)] ?? 0);
    }
  }
  const found: Match[] = [];
  for (let l = 0, r = 0; l < height && r < width; ) {
    if (left[range.left + l] === right[range.right + r]) {
      found.push([range.left + l, range.right + r]);
      l += 1;
      r += 1;
    } else if ((lengths[cell(l + 1, r)] ?? 0) >= (lengths[cell(l, r + 1)] ?? 0)) l += 1;
    else r += 1;
  }
  return found;
}

/** Between matches, what is left of both sides stands side by side. */
function fill(matches: readonly Match[], leftCount: number, rightCount: number): Pair[] {
  const pairs: Pair[] = [];
  let l = 0;
  let r = 0;
  for (const [atLeft, atRight] of [...matches, [leftCount, rightCount] as const]) {
    while (l < atLeft && r < atRight) pairs.push({ kind: "changed", left: l++, right: r++ });
    while (l < atLeft) pairs.push({ kind: "left", left: l++, right: null });
    while (r < atRight) pairs.push({ kind: "right", left: null, right: r++ });
    if (l < leftCount && r < rightCount) pairs.push({ kind: "same", left: l++, right: r++ });
  }
  return pairs;
}

/** A line that stands on the other side too, only elsewhere, is no difference: jobs that run at once finish as they like. */
function markMoved(pairs: readonly Pair[], left: readonly string[], right: readonly string[]): Pair[] {
  const spare = new Map<string, number>();
  for (const { kind, right: at } of pairs) {
    if (kind !== "same" && at !== null) spare.set(right[at] ?? "", (spare.get(right[at] ?? "") ?? 0) + 1);
  }
  const movedLeft = new Set<number>();
  const taken = new Map<string, number>();
  for (const { kind, left: at } of pairs) {
    if (kind === "same" || at === null) continue;
    const line = left[at] ?? "";
    const used = taken.get(line) ?? 0;
    if (used >= (spare.get(line) ?? 0)) continue;
    taken.set(line, used + 1);
    movedLeft.add(at);
  }
  const isMovedRight = (at: number): boolean => {
    const line = right[at] ?? "";
    const open = taken.get(line) ?? 0;
    if (open > 0) taken.set(line, open - 1);
    return open > 0;
  };
  return pairs.flatMap((pair): Pair[] => {
    if (pair.kind === "same") return [pair];
    const leftMoved = pair.left !== null && movedLeft.has(pair.left);
    const rightMoved = pair.right !== null && isMovedRight(pair.right);
    if (!leftMoved && !rightMoved) return [pair];
    const one = (side: "left" | "right", at: number | null, moved: boolean): Pair[] =>
      at === null ? [] : [{ kind: moved ? "moved" : side, left: side === "left" ? at : null, right: side === "right" ? at : null }];
    if (leftMoved && rightMoved && pair.left !== null && pair.right !== null) return [{ ...pair, kind: "moved" }];
    return [...one("left", pair.left, leftMoved), ...one("right", pair.right, rightMoved)];
  });
}
