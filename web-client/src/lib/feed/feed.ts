/**
 * What one log view shows: the rows of one or several streams, merged by time where they are read from
 * the store and by arrival where they come live. A feed owns one subscription; the view asks it for
 * more at either end, jumps, and returns to the end.
 */
import type { Gap, StreamEnded } from "../../gen/millstream/v1/log_pb";
import type { Position, Stream } from "../../gen/millstream/v1/stream_pb";
import type { Lines } from "../block/lines";
import type { LogClient } from "../rpc/client";
import { describeFailure } from "../rpc/failure";
import type { Phase, TailHandle, TailSource } from "../rpc/tail";
import { Follow, type ScrollPosition } from "./follow";
import { LiveTail } from "./live-tail";
import { Pages } from "./pages";
import type { Row } from "./row";
import { copiedText } from "./selection";
import { folded } from "./plan";
import type { Structure, Group } from "./structure";
import { Structures } from "./structures";
import { pick, Track } from "./track";
import { FOLLOWED_ROWS, isFold, MAX_ROWS, RowWindow, type Entry } from "./window";

/** Lines shown when a view opens, and lines added when it comes near an edge of the window. */
const FIRST_LINES = 1_000;
const MORE_LINES = 1_000;

/** Lines that are copied at most. */
const MAX_COPIED_LINES = 200_000;

/** A line that a link points at, or several. */
export interface LineTarget {
  readonly streamId: number;
  readonly sequence: number;
  /** Last of several lines. */
  readonly last?: number;
}

export class LogFeed {
  readonly tracks: ReadonlyMap<number, Track>;
  readonly #tails: TailSource;
  #handle: TailHandle | null = null;
  readonly #pages: Pages;
  #window = new RowWindow();
  readonly #structures: Structures;
  readonly #liveTail = new LiveTail();
  readonly #follow: Follow;
  readonly #changed: () => void;
  readonly #closed = new AbortController();
  /** Grows when the window is placed anew; work that began before is dropped. */
  #placement = 0;
  /** Number of the newest jump: an older one that is still reading must not win. */
  #jump = 0;
  #loading = false;
  /** The line that was jumped to, as long as the reader did not scroll away from it. */
  #target: LineTarget | null = null;
  /** Rows that stay in view while others are read. */
  #shown: readonly Row[] | null = null;
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
    this.#structures = new Structures(client, streamIds, this.#closed.signal, (id) => this.#onStructure(id));
    for (const track of this.tracks.values()) {
      track.hidden = () => this.#structures.of(track.streamId).folds.ranges(track.first);
    }
  }

  get rows(): readonly Row[] {
    return this.#shown ?? this.#window.rows;
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

  /** Groups and annotations of a stream. */
  structure(streamId: number): Structure {
    return this.#structures.of(streamId);
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
      lines: (lines) => this.#onLines(lines),
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
    this.#target = null;
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
    await this.jumpTo(longest.streamId, sequence, false);
    return { streamId: longest.streamId, sequence };
  }

  /** Shows the first line captured at or after a time, microseconds since the Unix epoch, and says which that is. */
  async toTime(timeUs: number): Promise<LineTarget | null> {
    this.#follow.pause();
    this.#problem = null;
    this.#jump += 1;
    const jump = this.#jump;
    let found: LineTarget | null = null;
    await this.#attempt(async (signal) => {
      const places = new Map<number, number>();
      for (const track of this.tracks.values()) {
        const sequence = await this.#pages.sequenceAt(track, timeUs, signal);
        places.set(track.streamId, sequence);
        if (found === null && sequence < track.head) found = { streamId: track.streamId, sequence };
      }
      if (jump !== this.#jump) return;
      if (found === null) {
        this.#problem = "No line was captured at that time or later; this is the end.";
        for (const track of this.tracks.values()) if (track.head > track.first) found = { streamId: track.streamId, sequence: track.head - 1 };
      }
      await this.#place((track) => places.get(track.streamId) ?? track.first);
    });
    this.#changed();
    return found;
  }

  /** The text of stored lines [from, to), also of those that are hidden or not loaded: as the view shows it. */
  async textOf(streamId: number, from: number, to: number): Promise<string> {
    const track = this.tracks.get(streamId);
    if (track === undefined) return "";
    if (to - from > MAX_COPIED_LINES) throw new RangeError(`More than ${MAX_COPIED_LINES} lines are too many to copy; download them.`);
    const window = new RowWindow(Infinity, Infinity);
    window.append(await this.#pages.range(track, from, to, this.#closed.signal));
    return window.rows.map(copiedText).join("\n");
  }

  /** Shows a line and what is around it, opens the groups that hide it unless told not to, and stops following. */
  async jumpTo(streamId: number, sequence: number, reveals = true): Promise<void> {
    const track = this.tracks.get(streamId);
    if (track === undefined) return;
    this.#follow.pause();
    this.#problem = null;
    this.#target = { streamId, sequence };
    this.#jump += 1;
    const jump = this.#jump;
    const index = this.#window.indexOf(streamId, sequence);
    const isRevealed = reveals && this.#structures.of(streamId).folds.reveal(sequence, track.first);
    if (index < 0 || isRevealed) {
      await this.#attempt(async (signal) => {
        if (track.stream === null) await this.#pages.bounds(track, signal);
        const wanted = this.#clamp(track, sequence);
        // Also who shows it again later goes to a line that there is.
        if (jump === this.#jump) this.#target = { streamId, sequence: wanted };
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

  /** When the first of the streams began: its run, or its first stored line; null when that cannot be told. */
  async startUs(): Promise<number | null> {
    let startUs: number | null = null;
    await this.#attempt(async (signal) => {
      for (const track of this.tracks.values()) {
        const run = track.stream?.run;
        const began = run ? Number(run.startUnixUs) : track.first < track.head ? await this.#pages.timeOf(track, track.first, signal) : null;
        if (began !== null && (startUs === null || began < startUs)) startUs = began;
      }
    });
    return startUs;
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

  /** Closes or opens a group; the rows around its header are read anew. */
  async setFolded(streamId: number, group: Group, isFolded: boolean): Promise<void> {
    this.#follow.pause();
    this.#structures.of(streamId).folds.set(group, isFolded);
    await this.#again(streamId, group.start);
  }

  /** Closes all groups but those that hold an error, or opens all, and shows again what is around a line. */
  async setAllFolded(isFolded: boolean, around: LineTarget): Promise<void> {
    this.#follow.pause();
    for (const id of this.tracks.keys()) this.#structures.of(id).folds.setAll(isFolded);
    await this.#again(around.streamId, around.sequence);
  }

  /** Reads what is around a line of the window anew. */
  async #again(streamId: number, sequence: number): Promise<void> {
    this.#jump += 1;
    // Where the other streams stand beside that line.
    const places = new Map<number, number>([[streamId, sequence]]);
    const at = this.#window.indexOf(streamId, sequence);
    for (const row of this.rows.slice(0, Math.max(0, at))) if (row.streamId !== streamId) places.set(row.streamId, row.nextSequence);
    await this.#place((track) => places.get(track.streamId) ?? track.shownFrom);
    this.#changed();
  }

  /** Rows around a place in each stream, shown when they are all here. */
  async #place(sequenceOf: (track: Track) => number): Promise<void> {
    await this.#fill(async () => {
      for (const track of this.tracks.values()) track.place(track.headerOf(sequenceOf(track)));
      await this.#load("newer", MORE_LINES);
      await this.#load("older", MORE_LINES / 2);
    });
  }

  /** The end as it has arrived: the newest lines are here already, older ones are read if need be. */
  async #showEnd(): Promise<void> {
    await this.#fill(async () => {
      for (const track of this.tracks.values()) {
        track.place(track.received);
        const entries = this.#liveTail.of(track.streamId);
        const from = entries[0]?.sequence ?? Infinity;
        track.holdOlder(folded(entries, track.hidden().filter((range) => range.to > from), track.streamId));
      }
      await this.#load("older", FIRST_LINES);
    });
  }

  /** Fills a new window; the one before stays in view until it is filled. */
  async #fill(load: () => Promise<void>): Promise<void> {
    this.#placement += 1;
    const placement = this.#placement;
    const before = this.#window;
    this.#window = new RowWindow();
    this.#shown = before.rows.length > 0 ? before.rows : null;
    this.#loading = false;
    await load();
    if (placement === this.#placement) this.#shown = null;
    this.#changed();
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
    let folding: Track | null = null;
    // A fold is never without the header that it stands behind.
    while ((entries.length < count || folding !== null) && placement === this.#placement) {
      const lacking = tracks.filter((track) => (direction === "older" ? track.needsOlder : track.needsNewer));
      if (lacking.length > 0) {
        await Promise.all(lacking.map((track) => this.#pages[direction](track, signal)));
        if (placement !== this.#placement) break;
        // Asking again for what a page did not bring would never end.
        const empty = lacking.find((track) => (direction === "older" ? track.needsOlder : track.needsNewer));
        if (empty) throw new Error(`the relay sent no lines next to s${empty[direction === "older" ? "shownFrom" : "shownTo"]}`);
      }
      const track: Track | null = folding ?? pick(tracks, direction);
      const entry: Entry | null | undefined = track?.[direction];
      if (!track || !entry) break;
      entries.push(entry);
      folding = direction === "older" && isFold(entry) ? track : null;
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
      this.#structures.search(this.tracks.keys());
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

  #onLines(lines: Lines): void {
    const track = this.tracks.get(lines.streamId);
    if (track === undefined) return;
    this.#structures.arrived(lines);
    this.#arrive(track, lines.slice(Math.max(0, lines.count - MAX_ROWS)), lines.nextSequence);
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
    this.#structures.search([streamId]);
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
    if (this.#shown === null && (this.#follow.following || this.#window.hasRoomFor(entries.length))) {
      const isFresh = (entry: Entry): boolean => entry.sequence >= track.shownTo;
      const fresh = entries[0] !== undefined && isFresh(entries[0]) ? entries : entries.filter(isFresh);
      const [first] = fresh;
      if (first !== undefined && first.sequence === track.shownTo) {
        this.#forgetOlder(this.#window.append(fresh, this.#follow.following ? FOLLOWED_ROWS : MAX_ROWS));
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
    this.#finish(track);
    this.#changed();
  }

  /** The groups of a stream are known: those that want to be closed are, but for what the reader has in view. */
  #onStructure(streamId: number): void {
    const track = this.tracks.get(streamId);
    if (track === undefined) return;
    this.#finish(track);
    const { folds } = this.#structures.of(streamId);
    if (this.#follow.following) {
      if (folds.ranges(track.first).length > 0) void this.#showEnd();
    } else if (this.#target?.streamId === streamId) {
      folds.reveal(this.#target.sequence, track.first);
      void this.#again(streamId, this.#target.sequence);
    } else {
      folds.holdOpen(track.shownFrom, track.shownTo);
    }
    this.#changed();
  }

  #finish(track: Track): void {
    if (track.end === null) return;
    this.#structures.of(track.streamId).ended(track.head, Number(track.end.endUnixUs) / 1_000);
  }

  #onReset(): void {
    this.#placement += 1;
    this.#loading = false;
    this.#caughtUp = false;
    this.#window.clear();
    this.#shown = null;
    this.#liveTail.clear();
    this.#structures.reset([...this.tracks.keys()]);
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
