/**
 * A search of whole streams on the relay, kept up while they grow: every hit by its place, however far it is
 * from what the browser holds. Runs one call at a time; a new query ends the one before.
 */
import { create } from "@bufbuild/protobuf";
import { FilterSchema, SearchOrder, type SearchRequest, type Severity } from "../../gen/millstream/v1/log_pb";
import { linesOf, type Line } from "../block/lines";
import type { LogClient } from "../rpc/client";
import { describeFailure } from "../rpc/failure";
import { filterOf, NO_QUERY, type Query } from "./query";

/** Hits that are held at most; more are counted. */
export const MAX_HITS = 10_000;

/** The place of a line among those of all streams in view. */
export interface Place {
  readonly streamId: number;
  readonly sequence: number;
  /** Capture time; null when it is not known. */
  readonly timeUs: number | null;
}

/** A part of what is in view. */
type Range = Partial<Pick<SearchRequest, "fromSequence" | "toSequence" | "sinceUnixUs" | "untilUnixUs">>;

export type Direction = "next" | "previous";

export class Find {
  readonly #client: LogClient;
  readonly #streamIds: readonly number[];
  readonly #changed: () => void;
  #call = new AbortController();
  #query = NO_QUERY;
  #hits: Line[] = [];
  #total = 0;
  #fraction = 0;
  #isDone = true;
  #problem: string | null = null;
  #lostLines = 0;
  /** Lines below were searched, by stream. */
  #searched = new Map<number, number>();
  #isGrowing = false;

  constructor(client: LogClient, streamIds: readonly number[], changed: () => void) {
    this.#client = client;
    this.#streamIds = streamIds;
    this.#changed = changed;
  }

  get query(): Query {
    return this.#query;
  }

  /** In the order in which they stand in the view. The newest ones, when there are too many. */
  get hits(): readonly Line[] {
    return this.#hits;
  }

  /** Hits that there are, held or not. */
  get total(): number {
    return this.#total;
  }

  /** 0 to 1. */
  get fraction(): number {
    return this.#fraction;
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  /** Why there is no more; null when all is well. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Lines that the relay could not read. */
  get lostLines(): number {
    return this.#lostLines;
  }

  close(): void {
    this.#call.abort();
  }

  /** Looks for something else. `heads`: the lines that exist now, by stream. */
  async search(query: Query, heads: ReadonlyMap<number, number>): Promise<void> {
    this.#call.abort();
    const call = new AbortController();
    this.#call = call;
    this.#query = query;
    this.#hits = [];
    this.#total = 0;
    this.#fraction = 0;
    this.#problem = null;
    this.#lostLines = 0;
    this.#isDone = query.text === "";
    this.#isGrowing = false;
    this.#searched = new Map(heads);
    this.#changed();
    if (this.#isDone) return;
    const request = { streamIds: this.#streamIds.map(BigInt), order: SearchOrder.NEWEST_FIRST, maxHits: MAX_HITS, countAll: true };
    try {
      await this.#run(request, call.signal, (lines) => {
        this.#hits = merge(lines, this.#hits);
      });
    } catch (error) {
      if (call.signal.aborted) return;
      this.#problem = `${describeFailure(error).message}.`;
    }
    this.#isDone = true;
    this.#fraction = 1;
    this.#changed();
  }

  /** Looks through lines that came after the search began. Does nothing while a call runs. */
  async grow(heads: ReadonlyMap<number, number>): Promise<void> {
    if (this.#query.text === "" || !this.#isDone || this.#problem !== null || this.#isGrowing) return;
    this.#isGrowing = true;
    const { signal } = this.#call;
    try {
      for (const [streamId, head] of heads) {
        const from = this.#searched.get(streamId) ?? 0;
        if (head <= from) continue;
        const before = this.#total;
        // The search before saw what existed when it reached the relay, which may be more than was known here.
        const last = this.#hits.findLast((hit) => hit.streamId === streamId)?.sequence ?? -1;
        let known = 0;
        const range = { fromSequence: BigInt(from), toSequence: BigInt(head) };
        const request = { streamIds: [BigInt(streamId)], order: SearchOrder.OLDEST_FIRST, maxHits: MAX_HITS, countAll: true, ...range };
        await this.#run(request, signal, (lines) => {
          const fresh = lines.filter(({ sequence }) => sequence > last);
          known += lines.length - fresh.length;
          this.#hits = merge(this.#hits, fresh).slice(-MAX_HITS);
        });
        if (signal.aborted) return;
        this.#total += before - known;
        this.#searched.set(streamId, head);
        this.#changed();
      }
    } catch {
      // It is tried again with the next lines.
    }
    if (!signal.aborted) this.#isGrowing = false;
  }

  /** The hit after a place or before it; null when there is none on that side. */
  neighbour(place: Place | null, direction: Direction): Line | null {
    if (place === null) return (direction === "next" ? this.#hits[0] : this.#hits.at(-1)) ?? null;
    if (direction === "next") return this.#hits.find((hit) => compare(hit, place) > 0) ?? null;
    return this.#hits.findLast((hit) => compare(hit, place) < 0) ?? null;
  }

  /** Index of the hit that is the place; -1 when it is none. */
  indexOf(place: Place | null): number {
    if (place === null) return -1;
    return this.#hits.findIndex(({ streamId, sequence }) => streamId === place.streamId && sequence === place.sequence);
  }

  async #run(
    request: Range & { readonly streamIds: bigint[]; readonly order: SearchOrder; readonly maxHits: number; readonly countAll: boolean },
    signal: AbortSignal,
    found: (lines: Line[]) => void,
  ): Promise<void> {
    for await (const { message } of this.#client.search({ ...request, filter: filterOf(this.#query) }, { signal })) {
      if (signal.aborted) return;
      if (message.case === "hits" && message.value.block !== undefined) {
        const streamId = Number(message.value.streamId);
        found(linesOf(streamId, message.value.block));
      } else if (message.case === "gap") {
        this.#lostLines += Number(message.value.nextSequence - message.value.firstSequence);
      } else if (message.case === "progress") {
        const { searchedTextBytes, totalTextBytes, hits } = message.value;
        this.#total = Number(hits);
        this.#fraction = totalTextBytes === 0n ? 1 : Number(searchedTextBytes) / Number(totalTextBytes);
      }
      this.#changed();
    }
  }
}

/** The nearest line of one of these severities after a place or before it; null when there is none. */
export async function findSeverity(
  client: LogClient,
  streamIds: readonly number[],
  place: Place | null,
  direction: Direction,
  severities: readonly Severity[],
  signal: AbortSignal,
): Promise<Line | null> {
  const isNext = direction === "next";
  const request = {
    streamIds: streamIds.map(BigInt),
    filter: create(FilterSchema, { severities: [...severities] }),
    order: isNext ? SearchOrder.OLDEST_FIRST : SearchOrder.NEWEST_FIRST,
    // Lines of several streams come a block at a time: the nearest one is among the first.
    maxHits: streamIds.length === 1 ? 1 : 100,
    ...(place === null ? {} : beyond(streamIds, place, isNext)),
  };
  let best: Line | null = null;
  for await (const { message } of client.search(request, { signal })) {
    if (message.case !== "hits" || message.value.block === undefined) continue;
    for (const line of linesOf(Number(message.value.streamId), message.value.block)) {
      if (place !== null && compare(line, place) * (isNext ? 1 : -1) <= 0) continue;
      if (best === null || compare(line, best) * (isNext ? 1 : -1) < 0) best = line;
    }
  }
  return best;
}

function beyond(streamIds: readonly number[], { sequence, timeUs }: Place, isNext: boolean): Range {
  if (streamIds.length === 1) return isNext ? { fromSequence: BigInt(sequence + 1) } : { toSequence: BigInt(Math.max(1, sequence)) };
  if (timeUs === null) return {};
  return isNext ? { sinceUnixUs: BigInt(timeUs) } : { untilUnixUs: BigInt(timeUs + 1) };
}

/** Order in the view: by sequence in a stream, by capture time between streams. */
function compare(a: Place, b: Place): number {
  if (a.streamId === b.streamId) return a.sequence - b.sequence;
  return (a.timeUs ?? 0) - (b.timeUs ?? 0) || a.streamId - b.streamId;
}

/** Two ordered lists as one; mostly one of them goes as a whole behind the other. */
function merge(a: readonly Line[], b: readonly Line[]): Line[] {
  const [lastA, firstB] = [a.at(-1), b[0]];
  if (lastA === undefined || firstB === undefined || compare(lastA, firstB) < 0) return [...a, ...b];
  return [...a, ...b].sort(compare);
}
