/**
 * One Tail subscription that is kept up: it reconnects with growing waits and goes on exactly where it
 * stood, by cursor and by the position after the last line it handed on.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Codec } from "../../gen/millstream/v1/block_pb";
import {
  TailRequestSchema,
  type Gap,
  type StreamBlock,
  type StreamEnded,
  type TailRequest,
  type TailResponse,
} from "../../gen/millstream/v1/log_pb";
import type { Stream } from "../../gen/millstream/v1/stream_pb";
import { nextSequenceOf } from "../block/lines";
import { Backoff, pause } from "./backoff";
import type { LogClient } from "./client";
import { describeFailure, StreamClosedError } from "./failure";
import { watched } from "./watchdog";

/** Where the subscription stands. */
export type Phase =
  | { readonly kind: "connecting" }
  | { readonly kind: "catching-up" }
  | { readonly kind: "live" }
  | { readonly kind: "resuming" }
  | { readonly kind: "reconnecting"; readonly atMs: number; readonly reason: string }
  | { readonly kind: "ended" }
  | { readonly kind: "failed"; readonly reason: string };

/** Who the session tells. All calls come in the order of the wire. */
export interface TailListener {
  phase(phase: Phase): void;
  stream(stream: Stream): void;
  block(block: StreamBlock): void;
  gap(gap: Gap): void;
  ended(ended: StreamEnded): void;
  /** The relay has another store: everything shown so far belongs to the past. */
  reset(): void;
}

export class TailSession {
  readonly #client: LogClient;
  readonly #streamIds: readonly number[];
  readonly #lastLines: number;
  readonly #listener: TailListener;
  readonly #positions = new Map<number, number>();
  readonly #ended = new Set<number>();
  readonly #stop = new AbortController();
  readonly #backoff = new Backoff();
  #wake = new AbortController();
  #cursor: Uint8Array<ArrayBuffer> | null = null;

  constructor(client: LogClient, streamIds: readonly number[], lastLines: number, listener: TailListener) {
    this.#client = client;
    this.#streamIds = streamIds;
    this.#lastLines = lastLines;
    this.#listener = listener;
  }

  /** Runs until it is stopped, every stream has ended, or nothing can be done. Never rejects. */
  async run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const resumes = this.#cursor !== null || this.#positions.size > 0;
      this.#listener.phase({ kind: resumes ? "resuming" : "connecting" });
      try {
        await this.#follow();
        if (this.#stop.signal.aborted) return;
        if (this.#allEnded()) {
          this.#listener.phase({ kind: "ended" });
          return;
        }
        throw new StreamClosedError();
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        const failure = describeFailure(error);
        if (failure.fatal) {
          this.#listener.phase({ kind: "failed", reason: failure.message });
          return;
        }
        if (failure.otherStore && resumes) this.#forget();
        const waitMs = this.#backoff.next();
        this.#listener.phase({ kind: "reconnecting", atMs: Date.now() + waitMs, reason: failure.message });
        await pause(waitMs, this.#wake.signal);
        if (!this.#stop.signal.aborted) this.#wake = new AbortController();
      }
    }
  }

  /** Ends the wait for the next attempt. */
  retryNow(): void {
    this.#wake.abort();
  }

  stop(): void {
    this.#stop.abort();
    this.#wake.abort();
  }

  async #follow(): Promise<void> {
    const open = (signal: AbortSignal): AsyncIterable<TailResponse> =>
      this.#client.tail(this.#request(), { signal });
    for await (const { message } of watched(open, this.#stop.signal)) {
      this.#backoff.reset();
      switch (message.case) {
        case "stream":
          this.#listener.stream(message.value);
          this.#listener.phase({ kind: "catching-up" });
          break;
        case "block":
          if (message.value.block === undefined) break;
          this.#listener.block(message.value);
          this.#positions.set(Number(message.value.streamId), nextSequenceOf(message.value.block));
          break;
        case "gap":
          this.#listener.gap(message.value);
          this.#positions.set(Number(message.value.streamId), Number(message.value.nextSequence));
          break;
        case "caughtUp":
          this.#cursor = message.value.cursor as Uint8Array<ArrayBuffer>;
          this.#listener.phase({ kind: "live" });
          break;
        case "heartbeat":
          this.#cursor = message.value.cursor as Uint8Array<ArrayBuffer>;
          break;
        case "streamEnded":
          this.#ended.add(Number(message.value.streamId));
          this.#listener.ended(message.value);
          // Nothing can follow any more: leave, and give the connection back.
          if (this.#allEnded()) return;
          break;
        case undefined:
          break;
      }
    }
  }

  #request(): TailRequest {
    const init: MessageInitShape<typeof TailRequestSchema> = {
      streamIds: this.#streamIds.map(BigInt),
      start: this.#cursor
        ? { case: "cursor", value: this.#cursor }
        : { case: "lastLines", value: BigInt(this.#lastLines) },
      positions: [...this.#positions].map(([streamId, nextSequence]) => ({
        streamId: BigInt(streamId),
        nextSequence: BigInt(nextSequence),
      })),
      follow: true,
      codecs: [Codec.NONE, Codec.ZSTD],
    };
    return create(TailRequestSchema, init);
  }

  #allEnded(): boolean {
    return this.#streamIds.length > 0 && this.#streamIds.every((id) => this.#ended.has(id));
  }

  #forget(): void {
    this.#cursor = null;
    this.#positions.clear();
    this.#ended.clear();
    this.#listener.reset();
  }
}
