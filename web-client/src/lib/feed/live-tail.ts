/** The newest lines that arrived, whatever the window shows: the way back to the end without a wait. */
import { type Entry } from "./window";

/** More than a view opens with. */
const MAX_ENTRIES = 1_500;
const MAX_BYTES = 8 * 1_048_576;

export class LiveTail {
  #entries: Entry[] = [];
  #bytes = 0;

  push(entries: readonly Entry[]): void {
    for (const entry of entries) {
      this.#entries.push(entry);
      this.#bytes += bytesOf(entry);
    }
    // Trimmed by halves, so that the cost for a line stays constant.
    if (this.#entries.length > 2 * MAX_ENTRIES || this.#bytes > 2 * MAX_BYTES) this.#trim();
  }

  clear(): void {
    this.#entries = [];
    this.#bytes = 0;
  }

  /** Entries of one stream, oldest first; they reach to the newest that arrived. */
  of(streamId: number): Entry[] {
    return this.#entries.filter((entry) => entry.streamId === streamId);
  }

  #trim(): void {
    let from = Math.max(0, this.#entries.length - MAX_ENTRIES);
    let bytes = this.#entries.slice(from).reduce((sum, entry) => sum + bytesOf(entry), 0);
    for (; bytes > MAX_BYTES && from < this.#entries.length - 1; from += 1) {
      const entry = this.#entries[from];
      if (entry !== undefined) bytes -= bytesOf(entry);
    }
    this.#entries = this.#entries.slice(from);
    this.#bytes = bytes;
  }
}

function bytesOf(entry: Entry): number {
  return "source" in entry ? entry.end - entry.start : 0;
}
