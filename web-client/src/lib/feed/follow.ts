/**
 * Whether the view stays at the end. It follows until the reader scrolls away, selects or opens a line,
 * and again when the reader comes back to the end.
 */

/** Where the view stands after a scroll. */
export interface ScrollPosition {
  /** From the lower edge of the view to the end of the rows, pixels. */
  readonly distanceToEndPx: number;
  /** The rows reach to the newest line that has arrived. */
  readonly showsNewest: boolean;
}

/** The reader counts as being at the end within this distance, pixels. */
const END_TOLERANCE_PX = 12;

export class Follow {
  #following: boolean;
  #newLines = 0;

  constructor(following = true) {
    this.#following = following;
  }

  get following(): boolean {
    return this.#following;
  }

  /** Lines that arrived since the view stopped following. */
  get newLines(): number {
    return this.#newLines;
  }

  arrived(lines: number): void {
    if (!this.#following) this.#newLines += lines;
  }

  /** The reader scrolled, by whatever means; scrolls that the view itself makes do not count. */
  scrolled(position: ScrollPosition): void {
    if (position.distanceToEndPx > END_TOLERANCE_PX) this.pause();
    else if (position.showsNewest) this.resume();
  }

  pause(): void {
    this.#following = false;
  }

  resume(): void {
    this.#following = true;
    this.#newLines = 0;
  }
}
