/** Places in sorted lists. */

/** Index of the first item whose key is at least `key`; the length when there is none. */
export function firstAtLeast<T>(items: readonly T[], key: number, keyOf: (item: T) => number): number {
  let from = 0;
  let to = items.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    const item = items[middle];
    if (item !== undefined && keyOf(item) < key) from = middle + 1;
    else to = middle;
  }
  return from;
}

const itself = (value: number): number => value;

/** How many of the sorted numbers are in [from, to). */
export function countBetween(numbers: readonly number[], from: number, to: number): number {
  return Math.max(0, firstAtLeast(numbers, to, itself) - firstAtLeast(numbers, from, itself));
}
