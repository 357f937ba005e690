/** Reads pages of stored lines beside the live subscription. */
import { Codec } from "../../gen/millstream/v1/block_pb";
import type { ReadResponse } from "../../gen/millstream/v1/log_pb";
import { linesOf } from "../block/lines";
import type { LogClient } from "../rpc/client";
import { folded, planNewer, planOlder, type PagePlan } from "./plan";
import type { Track } from "./track";
import type { Entry } from "./window";

/** Lines of one page at most, and the text that a page of average lines should have, bytes. */
const PAGE_LINES = 1_000;
const PAGE_BYTES = 1_048_576;

const CODECS = [Codec.NONE, Codec.ZSTD];

export class Pages {
  readonly #client: LogClient;

  constructor(client: LogClient) {
    this.#client = client;
  }

  /** Reads the page that ends where the window's part of the stream begins. */
  async older(track: Track, signal: AbortSignal): Promise<void> {
    const plan = planOlder(track.hidden(), track.first, track.shownFrom, pageLines(track));
    track.holdOlder(await this.#page(track, plan, signal));
  }

  /** Reads the page that begins where the window's part of the stream ends. */
  async newer(track: Track, signal: AbortSignal): Promise<void> {
    const plan = planNewer(track.hidden(), track.shownTo, track.head, pageLines(track));
    track.holdNewer(await this.#page(track, plan, signal));
  }

  /** Bounds of the stream as they are now. */
  async bounds(track: Track, signal: AbortSignal): Promise<void> {
    const page = await this.#client.read(
      { streamId: BigInt(track.streamId), from: { case: "fromSequence", value: 0n }, maxLines: 1 },
      { signal },
    );
    if (page.stream) track.learn(page.stream);
  }

  /** Capture time of a line; null when the line does not exist (any more). */
  async timeOf(track: Track, sequence: number, signal: AbortSignal): Promise<number | null> {
    const [entry] = await this.range(track, sequence, sequence + 1, signal);
    return entry !== undefined && "timeUs" in entry ? entry.timeUs : null;
  }

  /** Sequence of the first line captured at or after a time; the head when there is none. */
  async sequenceAt(track: Track, timeUs: number, signal: AbortSignal): Promise<number> {
    const page = await this.#client.read(
      { streamId: BigInt(track.streamId), from: { case: "fromUnixUs", value: BigInt(timeUs) }, maxLines: 1 },
      { signal },
    );
    if (page.stream) track.learn(page.stream);
    const [block] = page.blocks;
    return block ? Number(block.firstSequence) : track.head;
  }

  async #page(track: Track, plan: PagePlan, signal: AbortSignal): Promise<Entry[]> {
    const entries: Entry[] = [];
    for (const { from, to } of plan.reads) entries.push(...(await this.range(track, from, to, signal)));
    return folded(entries, plan.hidden, track.streamId);
  }

  /** Lines [from, to), whatever hides them. */
  async range(track: Track, from: number, to: number, signal: AbortSignal): Promise<Entry[]> {
    const entries: Entry[] = [];
    let next = from;
    // A message holds what fits into it, so that a range may take several.
    while (next < to) {
      const page = await this.#client.read(
        {
          streamId: BigInt(track.streamId),
          from: { case: "fromSequence", value: BigInt(next) },
          toSequence: BigInt(to),
          codecs: CODECS,
        },
        { signal },
      );
      if (page.stream) track.learn(page.stream);
      addGap(entries, page, track, to);
      for (const block of page.blocks) {
        for (const line of linesOf(track.streamId, block, { fromSequence: next })) {
          if (line.sequence < to) entries.push(line);
        }
      }
      const reached = Number(page.nextSequence);
      if (reached <= next) break;
      next = reached;
    }
    return entries;
  }
}

function addGap(entries: Entry[], page: ReadResponse, track: Track, to: number): void {
  if (page.gap === undefined) return;
  const sequence = Number(page.gap.firstSequence);
  const nextSequence = Math.min(Number(page.gap.nextSequence), to);
  if (nextSequence <= sequence) return;
  entries.push({ streamId: track.streamId, sequence, nextSequence, message: page.gap.message });
}

function pageLines(track: Track): number {
  if (track.stream === null || track.head === 0) return PAGE_LINES;
  const averageBytes = Number(track.stream.textBytes) / track.head;
  return Math.max(8, Math.min(PAGE_LINES, Math.floor(PAGE_BYTES / Math.max(1, averageBytes))));
}
