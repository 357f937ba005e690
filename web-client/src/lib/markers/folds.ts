/**
 * Which lines of a stream are hidden in closed groups. What the reader said of a group wins over what its marker
 * asked for. The header of a closed group stays in view, and with it the lines it stands for.
 */
import type { Group, Outline } from "./outline";
import { firstAtLeast } from "./sorted";

/** Hidden lines [from, to), below the header in the line before. */
export interface HiddenRange {
  readonly from: number;
  readonly to: number;
  /** Capture time of the header, microseconds. */
  readonly headerUs: number;
}

export class Folds {
  readonly #outline: Outline;
  readonly #said = new Map<number, boolean>();
  #ranges: HiddenRange[] = [];
  #changes = 0;
  #builtFor = "";

  constructor(outline: Outline) {
    this.#outline = outline;
  }

  /** Only a group that has ended, and that has lines below its header, can be closed. */
  canFold(group: Group): boolean {
    return group.end !== null && group.end > group.start + 1;
  }

  isFolded(group: Group): boolean {
    return this.canFold(group) && (this.#said.get(group.start) ?? this.#outline.isCollapsed(group));
  }

  set(group: Group, folded: boolean): void {
    this.#said.set(group.start, folded);
    this.#changes += 1;
  }

  /** Closes every group but those that hold an error, or opens all. */
  setAll(folded: boolean): void {
    this.#said.clear();
    for (const group of this.#outline.groups) {
      this.#said.set(group.start, folded && this.#outline.errorsWithin(group.start, group.end ?? Infinity) === 0);
    }
    this.#changes += 1;
  }

  /** Opens whatever hides a line; whether anything did. */
  reveal(sequence: number, first: number): boolean {
    let changed = false;
    for (let range = this.at(sequence, first); range !== null; range = this.at(sequence, first)) {
      const { from, to } = range;
      const before = this.#changes;
      for (const group of this.#outline.groups) {
        if (group.start >= to) break;
        if (group.start >= from - 1 && group.start < sequence && sequence < (group.end ?? Infinity) && this.isFolded(group)) {
          this.set(group, false);
          changed = true;
        }
      }
      if (this.#changes === before) break;
    }
    return changed;
  }

  /** Keeps what is in view as it is: groups there that nobody spoke of stay open. */
  holdOpen(from: number, to: number): void {
    for (const group of this.#outline.groups) {
      if (group.start >= to) break;
      if ((group.end ?? Infinity) > from && !this.#said.has(group.start)) this.set(group, false);
    }
  }

  /** Disjoint, in order, from the oldest stored line on: a group whose header is gone hides nothing. */
  ranges(first: number): readonly HiddenRange[] {
    const wanted = `${this.#outline.version}/${this.#changes}/${first}`;
    if (wanted === this.#builtFor) return this.#ranges;
    this.#builtFor = wanted;
    const ranges: HiddenRange[] = [];
    for (const group of this.#outline.groups) {
      if (group.start < first || group.end === null || !this.isFolded(group)) continue;
      const last = ranges.at(-1);
      if (last !== undefined && group.start < last.to) {
        if (group.end > last.to) ranges[ranges.length - 1] = { ...last, to: group.end };
      } else {
        ranges.push({ from: group.start + 1, to: group.end, headerUs: group.capturedMs * 1_000 });
      }
    }
    this.#ranges = ranges;
    return ranges;
  }

  /** The range that hides a line, if one does. */
  at(sequence: number, first: number): HiddenRange | null {
    const ranges = this.ranges(first);
    const range = ranges[firstAtLeast(ranges, sequence + 1, (each) => each.from) - 1];
    return range !== undefined && sequence < range.to ? range : null;
  }
}
