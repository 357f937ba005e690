/** A search of the text of all streams, as far as the palette shows it: the newest hits as they come. */
import { Codec } from "../../gen/millstream/v1/block_pb";
import { SearchOrder } from "../../gen/millstream/v1/log_pb";
import type { Stream } from "../../gen/millstream/v1/stream_pb";
import { linesOf } from "../block/lines";
import { LineRow, parsed } from "../feed/row";
import type { LogClient } from "../rpc/client";
import { describeFailure } from "../rpc/failure";

const MAX_HITS = 100;
const MAX_CHARACTERS = 400;

export interface Hit {
  readonly id: string;
  readonly streamId: number;
  readonly sequence: number;
  readonly text: string;
  readonly timeUs: number;
}

export interface Progress {
  readonly hits: readonly Hit[];
  /** 0 to 1. */
  readonly fraction: number;
  readonly isDone: boolean;
  /** Why there is no more; null when all is well. */
  readonly problem: string | null;
}

/** Runs until the signal aborts; `changed` is called with everything found so far. */
export async function searchEverywhere(
  client: LogClient,
  words: string,
  signal: AbortSignal,
  changed: (progress: Progress, streams: ReadonlyMap<number, Stream>) => void,
): Promise<void> {
  const streams = new Map<number, Stream>();
  const hits: Hit[] = [];
  let fraction = 0;
  const tell = (isDone: boolean, problem: string | null): void => {
    if (!signal.aborted) changed({ hits: [...hits], fraction, isDone, problem }, streams);
  };
  try {
    const call = client.search(
      {
        filter: { substring: words, ignoreCase: words === words.toLowerCase() },
        order: SearchOrder.NEWEST_FIRST,
        maxHits: MAX_HITS,
        codecs: [Codec.NONE, Codec.ZSTD],
      },
      { signal },
    );
    for await (const { message } of call) {
      if (message.case === "stream") streams.set(Number(message.value.streamId), message.value);
      else if (message.case === "hits" && message.value.block !== undefined) {
        const streamId = Number(message.value.streamId);
        const found = linesOf(streamId, message.value.block).map((line) => ({
          id: `hit-${streamId}-${line.sequence}`,
          streamId,
          sequence: line.sequence,
          text: parsed(new LineRow(line)).text.slice(0, MAX_CHARACTERS),
          timeUs: line.timeUs,
        }));
        hits.push(...found.reverse().slice(0, MAX_HITS - hits.length));
        tell(false, null);
      } else if (message.case === "progress") {
        const { searchedTextBytes, totalTextBytes } = message.value;
        fraction = totalTextBytes === 0n ? 1 : Number(searchedTextBytes) / Number(totalTextBytes);
        tell(message.value.done, null);
      }
    }
    tell(true, null);
  } catch (error) {
    tell(true, describeFailure(error).message);
  }
}
