/** The newest line of streams that are in view, as text: read when a stream grew, few at a time, and kept. */
import { Channel, Codec } from "../../gen/millstream/v1/block_pb";
import type { Stream } from "../../gen/millstream/v1/stream_pb";
import { linesOf } from "../block/lines";
import { LineRow, parsed } from "../feed/row";
import type { LogClient } from "../rpc/client";

/** A stream's line is read so often at most, milliseconds. */
const EVERY_MS = 2_000;

/** Reads that are under way at once, and lines that are kept. */
const READS = 3;
const KEPT = 1_000;

/** Lines in which the newest of the build's own is looked for: notices of its end may follow it. */
const LOOK_BACK = 8;

/** Characters of a line that an overview can show. */
const MAX_CHARACTERS = 300;

interface Known {
  readonly head: number;
  readonly readMs: number;
  readonly text: string;
}

export class LastLines {
  readonly #client: LogClient;
  readonly #changed: () => void;
  readonly #known = new Map<number, Known>();
  readonly #stop = new AbortController();
  #wanted: readonly Stream[] = [];
  #reads = 0;

  /** `changed` is called when a line has come: paint on the next frame. */
  constructor(client: LogClient, changed: () => void) {
    this.#client = client;
    this.#changed = changed;
  }

  /** These streams are in view: what was asked before and is not among them is not read any more. */
  want(streams: readonly Stream[]): void {
    this.#wanted = streams;
    this.#readNext();
  }

  /** The line as it was read last; empty as long as there is none. */
  of(streamId: number): string {
    return this.#known.get(streamId)?.text ?? "";
  }

  close(): void {
    this.#stop.abort();
  }

  #readNext(): void {
    const nowMs = Date.now();
    for (const stream of this.#wanted) {
      if (this.#reads >= READS) return;
      const id = Number(stream.streamId);
      const head = Number(stream.nextSequence);
      const known = this.#known.get(id);
      if (head === 0 || known?.head === head || (known !== undefined && nowMs - known.readMs < EVERY_MS)) continue;
      // Noted before it is here, so that nobody asks twice.
      this.#keep(id, { head, readMs: nowMs, text: known?.text ?? "" });
      void this.#read(id, head);
    }
  }

  async #read(streamId: number, head: number): Promise<void> {
    this.#reads += 1;
    try {
      const page = await this.#client.read(
        {
          streamId: BigInt(streamId),
          from: { case: "fromSequence", value: BigInt(Math.max(0, head - LOOK_BACK)) },
          toSequence: BigInt(head),
          // What the build said last, not what is said of it.
          filter: { channels: [Channel.STDOUT, Channel.STDERR] },
          codecs: [Codec.NONE, Codec.ZSTD],
        },
        { signal: this.#stop.signal },
      );
      const line = page.blocks.flatMap((block) => linesOf(streamId, block, {})).at(-1);
      if (line !== undefined) this.#keep(streamId, { head, readMs: Date.now(), text: parsed(new LineRow(line)).text.slice(0, MAX_CHARACTERS) });
    } catch {
      // The list says when the relay is away; here the line of before stays, and is read when there is a newer one.
    } finally {
      this.#reads -= 1;
    }
    if (this.#stop.signal.aborted) return;
    this.#changed();
    this.#readNext();
  }

  #keep(streamId: number, known: Known): void {
    this.#known.delete(streamId);
    this.#known.set(streamId, known);
    const [oldest] = this.#known.keys();
    if (this.#known.size > KEPT && oldest !== undefined) this.#known.delete(oldest);
  }
}
