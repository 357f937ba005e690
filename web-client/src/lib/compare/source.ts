/** The lines of one stream from its first stored line to its head as it is now, page by page. */
import { Channel, Codec } from "../../gen/millstream/v1/block_pb";
import { linesOf, type Line } from "../block/lines";
import type { LogClient } from "../rpc/client";
import type { LineSource } from "./comparison";

const PAGE_LINES = 2_000;

export class StreamLines implements LineSource {
  readonly #client: LogClient;
  readonly #streamId: number;
  readonly #signal: AbortSignal;
  #next = 0;
  #head: number | null = null;

  constructor(client: LogClient, streamId: number, signal: AbortSignal) {
    this.#client = client;
    this.#streamId = streamId;
    this.#signal = signal;
  }

  async next(): Promise<readonly Line[]> {
    while (this.#head === null || this.#next < this.#head) {
      const page = await this.#client.read(
        {
          streamId: BigInt(this.#streamId),
          from: { case: "fromSequence", value: BigInt(this.#next) },
          toSequence: BigInt(this.#head ?? 0),
          maxLines: PAGE_LINES,
          // What is said of a run differs between any two.
          filter: { channels: [Channel.STDOUT, Channel.STDERR] },
          codecs: [Codec.NONE, Codec.ZSTD],
        },
        { signal: this.#signal },
      );
      this.#head ??= Number(page.stream?.nextSequence ?? 0n);
      const from = this.#next;
      const reached = Number(page.nextSequence);
      const lines = page.blocks.flatMap((block) => linesOf(this.#streamId, block, { fromSequence: from }));
      if (reached <= from) return [];
      this.#next = reached;
      if (lines.length > 0) return lines;
    }
    return [];
  }
}
