/** The newest lines that arrived, whatever the window shows: the way back to the end without a wait. */
import { type Entry } from "./window";

/** More than a view opens with. */
const MAX_ENTRIES = 1_500;
const MAX_BYTES = 8 * 1_048_576;

interface Part {
  readonly entries: readonly Entry[];
  readonly bytes: number;
}

export class LiveTail {
  /** As they arrived; dropped as a whole too. */
  readonly #parts: Part[] = [];
  #count = 0;
  #bytes = 0;

  push(entries: readonly Entry[]): void {
    const bytes = entries.reduce((sum, entry) => sum + bytesOf(entry), 0);
    this.#parts.push({ entries, bytes });
    this.#count += entries.length;
    this.#bytes += bytes;
    while (this.#parts.length > 1) {
      const [oldest] = this.#parts;
      if (oldest === undefined || !this.#isEnoughWithout(oldest)) break;
      this.#parts.shift();
      this.#count -= oldest.entries.length;
      this.#bytes -= oldest.bytes;
    }
  }

  clear(): void {
    this.#parts.length = 0;
    this.#count = 0;
    this.#bytes = 0;
  }

  /** Entries of one stream, oldest first; they reach to the newest that arrived. */
  of(streamId: number): Entry[] {
    return this.#parts.flatMap(({ entries }) => entries.filter((entry) => entry.streamId === streamId));
  }

  #isEnoughWithout({ entries }: Part): boolean {
    return this.#count - entries.length >= MAX_ENTRIES || this.#bytes > MAX_BYTES;
  }
}

function bytesOf(entry: Entry): number {
  return "source" in entry ? entry.end - entry.start : 0;
}
