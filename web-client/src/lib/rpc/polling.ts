/** Following by pages, for where something on the way holds back a stream of messages. */
import { create } from "@bufbuild/protobuf";
import { Codec } from "../../gen/millstream/v1/block_pb";
import { StreamBlockSchema, StreamEndedSchema, type Gap, type StreamBlock, type StreamEnded } from "../../gen/millstream/v1/log_pb";
import { PositionSchema, type Position } from "../../gen/millstream/v1/stream_pb";
import { pause } from "./backoff";
import type { LogClient } from "./client";
import type { Followed } from "./followed";

/** Time between rounds, milliseconds: short while lines come, longer while none do. */
const BUSY_MS = 1_000;
const QUIET_MS = 3_000;

/** Pages of one stream in one round, so that a fast stream does not keep the others waiting. */
const PAGES_A_ROUND = 4;

export interface PollListener {
  block(block: StreamBlock): void;
  gap(gap: Gap): void;
  ended(ended: StreamEnded): void;
  heads(heads: readonly Position[]): void;
  /** A round is over and nothing is left to read. */
  caughtUp(): void;
}

/** Reads on in every stream from its position until the signal aborts or all have ended. */
export async function readOn(
  client: LogClient,
  followed: readonly Followed[],
  signal: AbortSignal,
  listener: PollListener,
): Promise<void> {
  while (!signal.aborted && followed.some((each) => each.isOpen)) {
    const heads: Position[] = [];
    let hasLines = false;
    for (const each of followed) {
      if (!each.isOpen) continue;
      const before = each.position;
      const head = await readStream(client, each, signal, listener);
      if (signal.aborted) return;
      hasLines ||= each.position !== before;
      if (head > (each.position ?? 0)) {
        heads.push(create(PositionSchema, { streamId: BigInt(each.streamId), nextSequence: BigInt(head) }));
      }
    }
    listener.heads(heads);
    if (heads.length > 0) continue;
    listener.caughtUp();
    await pause(hasLines ? BUSY_MS : QUIET_MS, signal);
  }
}

/** Reads a stream as far as one round goes; returns its head. */
async function readStream(client: LogClient, followed: Followed, signal: AbortSignal, listener: PollListener): Promise<number> {
  const streamId = BigInt(followed.streamId);
  let head = 0;
  for (let page = 0; page < PAGES_A_ROUND; page += 1) {
    const from = followed.position ?? 0;
    const response = await client.read(
      { streamId, from: { case: "fromSequence", value: BigInt(from) }, codecs: [Codec.NONE, Codec.ZSTD] },
      { signal },
    );
    if (response.gap) listener.gap(response.gap);
    for (const block of response.blocks) listener.block(create(StreamBlockSchema, { streamId, block }));
    const { stream } = response;
    if (stream === undefined) break;
    followed.learn(stream);
    head = Number(stream.nextSequence);
    const reached = Number(response.nextSequence);
    if (reached < head && reached > from) continue;
    if (stream.end !== undefined && reached >= head) {
      listener.ended(create(StreamEndedSchema, { streamId, nextSequence: stream.nextSequence, end: stream.end }));
    }
    break;
  }
  return head;
}
