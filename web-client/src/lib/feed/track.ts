/**
 * One stream within a feed: its bounds, which part of it the window shows, and lines that were read
 * ahead on either side but are not shown yet.
 */
import type { Stream, StreamEnd } from "../../gen/millstream/v1/stream_pb";
import type { HiddenRange } from "../markers/folds";
import { firstAtLeast } from "../markers/sorted";
import type { Entry } from "./window";

export class Track {
  readonly streamId: number;
  stream: Stream | null = null;
  end: StreamEnd | null = null;
  /** The relay says that there is no such stream. */
  isUnknown = false;
  /** Oldest stored sequence. */
  first = 0;
  /** Sequence after the newest line that exists. */
  head = 0;
  #received: number | null = null;
  /** Lines that the subscription said are missing. */
  missing = 0;
  /** Ranges of lines that are hidden in closed groups, in order and apart. */
  hidden: () => readonly HiddenRange[] = () => [];
  #toldHead = 0;
  /** The window shows [shownFrom, shownTo) of this stream. */
  shownFrom = 0;
  shownTo = 0;
  /** Read, and older than what is shown: up to `shownFrom`. Oldest first. */
  #before: Entry[] = [];
  /** Read, and newer than what is shown: from `shownTo`. Newest first, so that the next one is at the end. */
  #after: Entry[] = [];

  constructor(streamId: number) {
    this.streamId = streamId;
  }

  /** Takes over what the relay says of the stream; bounds never shrink. */
  learn(stream: Stream): void {
    this.stream = stream;
    this.first = Math.max(this.first, Number(stream.firstSequence));
    this.head = Math.max(this.head, Number(stream.nextSequence));
    if (stream.end !== undefined) this.end = stream.end;
  }

  /** Shows nothing, and stands at a sequence. */
  place(sequence: number): void {
    this.shownFrom = sequence;
    this.shownTo = sequence;
    this.#before = [];
    this.#after = [];
  }

  /** Of a line that is hidden in a closed group the group's header, of every other one itself. */
  headerOf(sequence: number): number {
    const ranges = this.hidden();
    const range = ranges[firstAtLeast(ranges, sequence + 1, (each) => each.from) - 1];
    return range !== undefined && sequence < range.to ? range.from - 1 : sequence;
  }

  /** The next entry towards the beginning; null when it has to be read first or there is none. */
  get older(): Entry | null {
    const entry = this.#before.at(-1);
    return entry !== undefined && nextOf(entry) === this.shownFrom ? entry : null;
  }

  get newer(): Entry | null {
    const entry = this.#after.at(-1);
    return entry !== undefined && entry.sequence === this.shownTo ? entry : null;
  }

  get needsOlder(): boolean {
    return this.older === null && this.shownFrom > this.first;
  }

  get needsNewer(): boolean {
    return this.newer === null && this.shownTo < this.received;
  }

  /** Sequence after the newest line that the subscription delivered; the head as long as there is none. */
  get received(): number {
    return this.#received ?? this.head;
  }

  /** The subscription delivered everything up to here. */
  receive(nextSequence: number): void {
    this.#received = Math.max(this.#received ?? 0, nextSequence);
    this.head = Math.max(this.head, nextSequence);
  }

  /** The relay says that lines below this exist. */
  hear(head: number): void {
    this.#toldHead = Math.max(this.#toldHead, head);
    this.head = Math.max(this.head, head);
  }

  /** Lines that exist, as far as the relay said, and have not been delivered. */
  get behind(): number {
    return Math.max(0, this.#toldHead - this.received);
  }

  /** Live entries were shown up to here. */
  showTo(nextSequence: number): void {
    this.shownTo = nextSequence;
  }

  /** Rows before this sequence left the window. */
  evictBefore(sequence: number): void {
    this.shownFrom = Math.max(this.shownFrom, sequence);
  }

  /** Rows from this sequence on left the window. */
  evictFrom(sequence: number): void {
    this.shownTo = Math.min(this.shownTo, sequence);
  }

  /** Forgets everything: the relay has another store. */
  reset(): void {
    this.stream = null;
    this.end = null;
    this.isUnknown = false;
    this.first = 0;
    this.head = 0;
    this.#received = null;
    this.#toldHead = 0;
    this.missing = 0;
    this.place(0);
  }

  holdOlder(entries: Entry[]): void {
    this.#before = entries;
  }

  holdNewer(entries: Entry[]): void {
    this.#after = entries.reverse();
  }

  takeOlder(): void {
    const entry = this.#before.pop();
    if (entry !== undefined) this.shownFrom = entry.sequence;
  }

  takeNewer(): void {
    const entry = this.#after.pop();
    if (entry !== undefined) this.shownTo = nextOf(entry);
  }
}

/** Sequence after an entry. */
export function nextOf(entry: Entry): number {
  return "nextSequence" in entry ? entry.nextSequence : entry.sequence + 1;
}

/** Capture time of an entry; a gap has none and goes first where it stands. */
export function timeOf(entry: Entry): number | null {
  return "timeUs" in entry ? entry.timeUs : null;
}

/**
 * Of the streams' next older entries the newest, of their next newer entries the oldest; within a stream
 * the order of sequences always holds, whatever its clock did.
 */
export function pick(tracks: Iterable<Track>, direction: "older" | "newer"): Track | null {
  let best: Track | null = null;
  let bestTime = 0;
  for (const track of tracks) {
    const entry = track[direction];
    if (entry === null) continue;
    const time = timeOf(entry);
    if (time === null) return track;
    if (best === null || (direction === "older" ? time > bestTime : time < bestTime)) {
      best = track;
      bestTime = time;
    }
  }
  return best;
}
