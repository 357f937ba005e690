/** How panes that stand side by side share the room: fractions that add up to 1. */

/** A pane keeps at least this share. */
export const MIN_SHARE = 0.1;

export function equalShares(count: number): number[] {
  return Array.from({ length: count }, () => 1 / count);
}

/** The shares after the border behind pane `at` moved by a fraction of the whole; only its neighbours change. */
export function moveBorder(shares: readonly number[], at: number, by: number): number[] {
  const before = shares[at];
  const after = shares[at + 1];
  if (before === undefined || after === undefined) return [...shares];
  const limit = Math.min(MIN_SHARE, (before + after) / 2);
  const moved = Math.min(Math.max(by, limit - before), after - limit);
  return shares.map((share, index) => (index === at ? share + moved : index === at + 1 ? share - moved : share));
}
