/**
 * The contract between whoever shows lines and whoever fetches them: a subscription to some streams, and
 * what it is told. One Tail serves all subscriptions; `tail-hub.ts` fills this contract where that call is
 * made, `hub-link.ts` where it is made elsewhere.
 */
import type { Gap, StreamEnded } from "../../gen/millstream/v1/log_pb";
import type { Position, Stream } from "../../gen/millstream/v1/stream_pb";
import type { Lines } from "../block/lines";

/** Where a subscription stands. */
export type Phase =
  | { readonly kind: "connecting" }
  | { readonly kind: "catching-up" }
  | { readonly kind: "live" }
  /** Live, but read page by page, because something on the way holds back the stream. */
  | { readonly kind: "polling" }
  | { readonly kind: "resuming" }
  | { readonly kind: "reconnecting"; readonly atMs: number; readonly reason: string }
  | { readonly kind: "ended" }
  | { readonly kind: "failed"; readonly reason: string };

/** Who a subscription tells. The lines of a stream come in order, without gap or repeat. */
export interface TailListener {
  phase(phase: Phase): void;
  /** The stream as it is now, before its first block. */
  stream(stream: Stream): void;
  /** New lines of one stream; those that may be more than text are marked. */
  lines(lines: Lines): void;
  gap(gap: Gap): void;
  ended(ended: StreamEnded): void;
  /** Streams that have more lines than were delivered. */
  heads(heads: readonly Position[]): void;
  /**
   * Lines below `nextSequence` were not handed on, because this listener took too long. They are stored:
   * read them if they are wanted.
   */
  skipped(streamId: number, nextSequence: number): void;
  /** The relay has another store: everything shown so far belongs to the past. */
  reset(): void;
}

export interface TailSource {
  /**
   * Subscribes to streams: at most `lastLines` that each has, then what comes. Of a stream that is followed
   * already only what comes: where that begins stands in `Stream.next_sequence`.
   */
  follow(streamIds: readonly number[], lastLines: number, listener: TailListener): TailHandle;
}

export interface TailHandle {
  /** Ends the wait for the next attempt to connect. */
  retryNow(): void;
  close(): void;
}
