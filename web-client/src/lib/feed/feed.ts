/**
 * What one log view shows: the rows of one or several streams, merged by time where they are read from
 * the store and by arrival where they come live. A feed owns one subscription; the view asks it for
 * more at either end, jumps, and returns to the end.
 */
import type { Gap, StreamBlock, StreamEnded } from "../../gen/millstream/v1/log_pb";
import type { Position, Stream } from "../../gen/millstream/v1/stream_pb";
import { linesOf, nextSequenceOf } from "../block/lines";
import type { LogClient } from "../rpc/client";
import { describeFailure } from "../rpc/failure";
import type { Phase, TailHandle, TailSource } from "../rpc/tail";
import { Follow, type ScrollPosition } from "./follow";
import { LiveTail } from "./live-tail";
import { Pages } from "./pages";
import type { Row } from "./row";
import { pick, Track } from "./track";
import { MAX_ROWS, RowWindow, type Entry } from "./window";

/** Lines shown when a view opens, and lines added when it comes near an edge of the window. */
const FIRST_LINES = 1_000;
const MORE_LINES = 1_000;

/** A line that a link points at. */
export interface LineTarget {
  readonly streamId: number;
  readonly sequence: number;
}

export class LogFeed {
  readonly tracks: ReadonlyMap<number, Track>;
  readonly #tails: TailSource;
  #handle: TailHandle | null = null;
  readonly #pages: Pages;
  readonly #window = new RowWindow();
  readonly #liveTail = new LiveTail();
  readonly #follow: Follow;
  readonly #changed: () => void;
  readonly #closed = new AbortController();
  /** Grows when the window is placed anew; work that began before is dropped. */
  #placement = 0;
  /** Number of the newest jump: an older one that is still reading must not win. */
  #jump = 0;
  #loading = false;
  #caughtUp = false;
  #phase: Phase = { kind: "connecting" };
  #problem: string | null = null;

  /**
   * Opens at the end where `follows` is set, otherwise empty until a jump. `changed` is called after every
   * change, many times a second under load: paint on the next frame.
   */
  constructor(client: LogClient, tails: TailSource, streamIds: readonly number[], follows: boolean, changed: () => void) {
    this.tracks = new Map(streamIds.map((id) => [id, new Track(id)]));
    this.#pages = new Pages(client);
    this.#changed = changed;
    this.#follow = new Follow(follows);
    this.#tails = tails;
  }

  get rows(): readonly Row[] {
    return this.#window.rows;
  }

  get phase(): Phase {
    return this.#phase;
  }

  get following(): boolean {
    return this.#follow.following;
  }

  get newLines(): number {
    return this.#follow.newLines;
  }

  /** The history before the view opened has arrived. */
  get isOpen(): boolean {
    return this.#caughtUp;
  }

  /** Why the last page could not be read, or a link's line is not there; null when all is well. */
  get problem(): string | null {
    return this.#problem;
  }

  get isLoading(): boolean {
    return this.#loading;
  }

  /** Lines that are stored, over all streams. */
  get totalLines(): number {
    return sum(this.tracks, (track) => track.head - track.first);
  }

  get hasOlder(): boolean {
    return some(this.tracks, (track) => track.shownFrom > track.first);
  }

  get hasNewer(): boolean {
    return some(this.tracks, (track) => track.shownTo < track.received);
  }

  /** Subscribes, until `close`. */
  open(): void {
    this.#handle = this.#tails.follow([...this.tracks.keys()], FIRST_LINES, {
      phase: (phase) => this.#onPhase(phase),
      stream: (stream) => this.#onStream(stream),
      block: (block, from) => this.#onBlock(block, from),
      gap: (gap) => this.#onGap(gap),
      ended: (ended) => this.#onEnded(ended),
      heads: (heads) => this.#onHeads(heads),
      skipped: (streamId, next) => this.#onSkipped(streamId, next),
      reset: () => this.#onReset(),
    });
  }

  close(): void {
    this.#placement += 1;
    this.#closed.abort();
    this.#handle?.close();
  }

  retryNow(): void {
    this.#handle?.retryNow();
  }

  /** Lines before a row of the window, counted over the whole of all streams. */
  linesBefore(rowIndex: number): number {
    const row = this.rows[rowIndex];
    const [only] = this.tracks.values();
    if (this.tracks.size === 1 && only && row) return row.sequence - only.first;
    return sum(this.tracks, (track) => Math.max(0, track.shownFrom - track.first)) + rowIndex;
  }

  scrolled(position: Omit<ScrollPosition, "showsNewest">): void {
    this.#follow.scrolled({ ...position, showsNewest: !this.hasNewer });
  }

  pause(): void {
    this.#follow.pause();
    this.#changed();
  }

  /** Shows the newest lines and follows. */
  async toEnd(): Promise<void> {
    this.#jump += 1;
    this.#follow.resume();
    this.#problem = null;
    if (this.hasNewer || this.rows.length === 0) await this.#showEnd();
    this.#changed();
  }

  /** Shows the oldest lines. */
  async toStart(): Promise<void> {
    this.#follow.pause();
    if (this.hasOlder) {
      await this.#place((track) => track.first);
    }
    this.#changed();
  }

  /** Shows the line at a fraction of all lines, 0 the oldest, 1 the newest, and says which that is. */
  async toFraction(fraction: number): Promise<LineTarget | null> {
    const longest = [...this.tracks.values()].reduce<Track | null>(
      (best, track) => (best === null || track.head - track.first > best.head - best.first ? track : best),
      null,
    );
    if (longest === null) return null;
    const wanted = longest.first + Math.round(fraction * (longest.head - longest.first));
    const sequence = Math.min(wanted, Math.max(longest.first, longest.head - 1));
    await this.jumpTo(longest.streamId, sequence);
    return { streamId: longest.streamId, sequence };
  }

  /** Shows a line and what is around it, and stops following. */
  async jumpTo(streamId: number, sequence: number): Promise<void> {
    const track = this.tracks.get(streamId);
    if (track === undefined) return;
    this.#follow.pause();
    this.#problem = null;
    this.#jump += 1;
    const jump = this.#jump;
    if (this.#window.indexOf(streamId, sequence) < 0) {
      await this.#attempt(async (signal) => {
        if (track.stream === null) await this.#pages.bounds(track, signal);
        const wanted = this.#clamp(track, sequence);
        const places = new Map([[streamId, wanted]]);
        if (this.tracks.size > 1) {
          const timeUs = await this.#pages.timeOf(track, wanted, signal);
          for (const other of this.tracks.values()) {
            if (other === track) continue;
            places.set(other.streamId, timeUs === null ? other.first : await this.#pages.sequenceAt(other, timeUs, signal));
          }
        }
        if (jump === this.#jump) await this.#place((each) => places.get(each.streamId) ?? each.first);
      });
    }
    this.#changed();
  }

  /** Adds older rows above the window. */
  async loadOlder(): Promise<void> {
    await this.#load("older", MORE_LINES);
  }

  /** Adds newer rows below the window. */
  async loadNewer(): Promise<void> {
    await this.#load("newer", MORE_LINES);
  }

  #clamp(track: Track, sequence: number): number {
    if (sequence < track.first) {
      this.#problem = `Line s${sequence} is no longer stored. The oldest line is s${track.first}.`;
      return track.first;
    }
    if (sequence >= track.head) {
      this.#problem = `Line s${sequence} does not exist yet. The stream has ${track.head.toLocaleString("en")} lines.`;
      return Math.max(track.first, track.head - 1);
    }
    return sequence;
  }

  async #place(sequenceOf: (track: Track) => number): Promise<void> {
    this.#placement += 1;
    this.#loading = false;
    this.#window.clear();
    for (const track of this.tracks.values()) track.place(sequenceOf(track));
    await this.#load("newer", MORE_LINES);
    await this.#load("older", MORE_LINES / 2);
  }

  /** The end as it has arrived: the newest lines are here already, older ones are read if need be. */
  async #showEnd(): Promise<void> {
    this.#placement += 1;
    this.#loading = false;
    this.#window.clear();
    for (const track of this.tracks.values()) {
      track.place(track.received);
      track.holdOlder(this.#liveTail.of(track.streamId));
    }
    await this.#load("older", FIRST_LINES);
  }

  async #load(direction: "older" | "newer", count: number): Promise<void> {
    if (this.#loading || this.#closed.signal.aborted) return;
    this.#loading = true;
    const placement = this.#placement;
    await this.#attempt(async (signal) => {
      const entries = await this.#take(direction, count, signal, placement);
      if (placement !== this.#placement) return;
      if (direction === "newer") this.#forgetOlder(this.#window.append(entries));
      else this.#forgetNewer(this.#window.prepend(entries.reverse()));
    });
    if (placement === this.#placement) this.#loading = false;
    this.#changed();
  }

  async #take(direction: "older" | "newer", count: number, signal: AbortSignal, placement: number): Promise<Entry[]> {
    const tracks = [...this.tracks.values()];
    const entries: Entry[] = [];
    while (entries.length < count && placement === this.#placement) {
      const lacking = tracks.filter((track) => (direction === "older" ? track.needsOlder : track.needsNewer));
      if (lacking.length > 0) {
        await Promise.all(lacking.map((track) => this.#pages[direction](track, signal)));
        if (placement !== this.#placement) break;
        // Asking again for what a page did not bring would never end.
        const empty = lacking.find((track) => (direction === "older" ? track.needsOlder : track.needsNewer));
        if (empty) throw new Error(`the relay sent no lines next to s${empty[direction === "older" ? "shownFrom" : "shownTo"]}`);
      }
      const track = pick(tracks, direction);
      const entry = track?.[direction];
      if (!track || !entry) break;
      entries.push(entry);
      if (direction === "older") track.takeOlder();
      else track.takeNewer();
    }
    return entries;
  }

  async #attempt(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await work(this.#closed.signal);
    } catch (error) {
      if (this.#closed.signal.aborted) return;
      this.#problem = `These lines could not be read: ${describeFailure(error).message}.`;
    }
  }

  #forgetOlder(rows: readonly Row[]): void {
    for (const row of rows) this.tracks.get(row.streamId)?.evictBefore(row.nextSequence);
  }

  #forgetNewer(rows: readonly Row[]): void {
    for (const row of [...rows].reverse()) this.tracks.get(row.streamId)?.evictFrom(row.sequence);
  }

  #onPhase(phase: Phase): void {
    this.#phase = phase;
    const isSettled = phase.kind === "live" || phase.kind === "polling" || phase.kind === "ended";
    if (isSettled && !this.#caughtUp) {
      this.#caughtUp = true;
      if (this.#follow.following) void this.#showEnd();
      for (const track of this.tracks.values()) if (track.stream === null) void this.#ask(track);
    }
    this.#changed();
  }

  /** A subscription says nothing of a stream that does not exist (yet); a read does. */
  async #ask(track: Track): Promise<void> {
    try {
      await this.#pages.bounds(track, this.#closed.signal);
    } catch (error) {
      track.isUnknown = describeFailure(error).fatal;
    }
    this.#changed();
  }

  #onStream(stream: Stream): void {
    const track = this.tracks.get(Number(stream.streamId));
    if (track === undefined) return;
    track.learn(stream);
    track.isUnknown = false;
    this.#changed();
  }

  #onBlock({ streamId, block }: StreamBlock, fromSequence: number): void {
    const track = this.tracks.get(Number(streamId));
    if (track === undefined || block === undefined) return;
    this.#arrive(track, linesOf(track.streamId, block, { fromSequence, lastLines: MAX_ROWS }), nextSequenceOf(block));
  }

  #onGap(gap: Gap): void {
    const track = this.tracks.get(Number(gap.streamId));
    if (track === undefined) return;
    const mark = {
      streamId: track.streamId,
      sequence: Number(gap.firstSequence),
      nextSequence: Number(gap.nextSequence),
      message: gap.message,
    };
    track.missing += mark.nextSequence - mark.sequence;
    this.#arrive(track, [mark], mark.nextSequence);
  }

  #onHeads(heads: readonly Position[]): void {
    for (const { streamId, nextSequence } of heads) this.tracks.get(Number(streamId))?.hear(Number(nextSequence));
    this.#changed();
  }

  /** Lines that are stored but were not handed on: the view reads them where it shows them. */
  #onSkipped(streamId: number, next: number): void {
    const track = this.tracks.get(streamId);
    if (track === undefined) return;
    const before = track.received;
    track.receive(next);
    this.#liveTail.clear();
    this.#follow.arrived(Math.max(0, next - before));
    if (this.#caughtUp && this.#follow.following) void this.#showEnd();
    this.#changed();
  }

  #arrive(track: Track, entries: readonly Entry[], next: number): void {
    const before = track.received;
    track.receive(next);
    this.#liveTail.push(entries);
    if (!this.#caughtUp) return;
    this.#follow.arrived(Math.max(0, next - before));
    // A reader who has scrolled up keeps what they read: new lines come in only while there is room.
    if (this.#follow.following || this.#window.hasRoomFor(entries.length)) {
      const fresh = entries.filter((entry) => entry.sequence >= track.shownTo);
      const [first] = fresh;
      if (first !== undefined && first.sequence === track.shownTo) {
        this.#forgetOlder(this.#window.append(fresh));
        track.showTo(next);
      } else if (first !== undefined && this.#follow.following) {
        void this.#showEnd();
      }
    }
    this.#changed();
  }

  #onEnded(ended: StreamEnded): void {
    const track = this.tracks.get(Number(ended.streamId));
    if (track === undefined) return;
    track.end = ended.end ?? null;
    track.receive(Number(ended.nextSequence));
    this.#changed();
  }

  #onReset(): void {
    this.#placement += 1;
    this.#loading = false;
    this.#caughtUp = false;
    this.#window.clear();
    this.#liveTail.clear();
    this.#follow.resume();
    for (const track of this.tracks.values()) track.reset();
    this.#changed();
  }
}

function sum(tracks: ReadonlyMap<number, Track>, value: (track: Track) => number): number {
  let total = 0;
  for (const track of tracks.values()) total += value(track);
  return total;
}

function some(tracks: ReadonlyMap<number, Track>, test: (track: Track) => boolean): boolean {
  for (const track of tracks.values()) if (test(track)) return true;
  return false;
}
