/**
 * The outline of one stream and which of its groups are closed: read once over the whole stream by a search for
 * markers, however little of the stream is loaded, and kept up by the lines that arrive.
 */
import { Severity } from "../../gen/millstream/v1/log_pb";
import type { Line, Lines } from "../block/lines";
import { Folds } from "../markers/folds";
import { Outline, type Group } from "../markers/outline";
import { CANDIDATES, MarkerParser } from "../markers/parser";
import { ERROR_LINES } from "../markers/severity";
import type { LogClient } from "../rpc/client";
import { searchStream } from "./stream-search";

/** Markers of one stream that are read; more are not part of its outline. */
const MAX_MARKERS = 200_000;
const MAX_ERRORS = 50_000;

/** Marked lines that wait for the end of the search. */
const MAX_WAITING = 50_000;

const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });
const markers = new RegExp(CANDIDATES, "m");

export class Structure {
  readonly outline = new Outline();
  readonly folds = new Folds(this.outline);
  readonly #parser = new MarkerParser();
  /** Lines below it were looked at. */
  #next = 0;
  #waiting: Line[] = [];
  #isSearched = false;
  #isEnded = false;

  /** The whole stream was looked at, or as much of it as can be. */
  get isSearched(): boolean {
    return this.#isSearched;
  }

  /** Looks through the stream as it is stored. Rejects when the relay cannot search. */
  async search(client: LogClient, streamId: number, signal: AbortSignal): Promise<void> {
    const from = this.#next;
    this.#isSearched = false;
    await searchStream(client, { streamId, fromSequence: from, filter: { regex: CANDIDATES }, maxHits: MAX_MARKERS }, signal, (lines) => {
      for (const line of lines) this.#read(line);
    });
    const filter = (await saysErrors(client, streamId, signal)) ? { severities: [Severity.ERROR] } : { regex: ERROR_LINES };
    await searchStream(client, { streamId, fromSequence: from, filter, maxHits: MAX_ERRORS }, signal, (lines) => {
      for (const line of lines) if (mayBeError(line)) this.outline.addErrorLine(line.sequence);
    });
    this.goOn();
  }

  /** Goes on with the lines that arrive: after the search, or without one where the relay cannot search. */
  goOn(): void {
    this.#isSearched = true;
    for (const line of this.#waiting.splice(0)) this.#take(line);
  }

  /** Lines that have arrived and were looked through; in order, but lines may be missing between those of two calls. */
  arrived(lines: Lines): void {
    for (const line of lines.interesting()) this.#arrive(line);
  }

  #arrive(line: Line): void {
    if (this.#isSearched) this.#take(line);
    else if (this.#waiting.length < MAX_WAITING) this.#waiting.push(line);
  }

  /** The stream has ended; its groups end with it. */
  ended(head: number, timeMs: number): void {
    if (this.#isEnded || !this.#isSearched) return;
    this.#isEnded = true;
    this.outline.finish(head, timeMs);
  }

  /** What arrives while it is looked at is not closed under the reader's eyes. */
  #take(line: Line): void {
    if (line.sequence < this.#next) return;
    const text = decoder.decode(line.source.subarray(line.start, line.end));
    if (!markers.test(text)) {
      if (mayBeError(line)) this.outline.addErrorLine(line.sequence);
      return;
    }
    const before = this.outline.unended();
    this.#read(line, text);
    for (const group of before) if (group.end !== null) this.folds.set(group, false);
  }

  #read(line: Line, text = decoder.decode(line.source.subarray(line.start, line.end))): void {
    if (line.sequence < this.#next) return;
    this.#next = line.sequence + 1;
    this.outline.add(line.sequence, line.timeUs / 1_000, this.#parser.read(text, line.sequence));
  }
}

/** Nobody said that it is none. */
function mayBeError(line: Line): boolean {
  return line.severity === Severity.UNSPECIFIED || line.severity === Severity.ERROR;
}

/** The agent of a stream says which lines are errors, as far as the first one that there is tells. */
async function saysErrors(client: LogClient, streamId: number, signal: AbortSignal): Promise<boolean> {
  let says = false;
  await searchStream(client, { streamId, fromSequence: 0, filter: { severities: [Severity.ERROR] }, maxHits: 1 }, signal, (lines) => {
    says = lines[0]?.severity === Severity.ERROR;
  });
  return says;
}

export type { Group };
