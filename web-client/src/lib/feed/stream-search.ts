/** Hits of a search in one stream, oldest first, as lines. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Codec } from "../../gen/millstream/v1/block_pb";
import { SearchOrder, SearchRequestSchema, type FilterSchema } from "../../gen/millstream/v1/log_pb";
import { linesOf, type Line } from "../block/lines";
import type { LogClient } from "../rpc/client";

export interface StreamSearch {
  readonly streamId: number;
  /** Hits below it are left out. */
  readonly fromSequence: number;
  readonly filter: MessageInitShape<typeof FilterSchema>;
  readonly maxHits: number;
}

/** Resolves when the whole stream was looked through or `maxHits` lines were found. */
export async function searchStream(client: LogClient, search: StreamSearch, signal: AbortSignal, found: (lines: Line[]) => void): Promise<void> {
  const request = create(SearchRequestSchema, {
    streamIds: [BigInt(search.streamId)],
    filter: search.filter,
    order: SearchOrder.OLDEST_FIRST,
    maxHits: search.maxHits,
    codecs: [Codec.NONE],
  });
  for await (const { message } of client.search(request, { signal })) {
    if (message.case === "hits" && message.value.block !== undefined) found(linesOf(search.streamId, message.value.block, { fromSequence: search.fromSequence }));
  }
}
