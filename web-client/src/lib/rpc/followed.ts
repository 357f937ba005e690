/** One stream that the hub follows: what is known of it, and where the lines that were handed on end. */
import { clone } from "@bufbuild/protobuf";
import type { StreamEnded } from "../../gen/millstream/v1/log_pb";
import { StreamSchema, type Stream } from "../../gen/millstream/v1/stream_pb";

/** The relay has another store than before: the same ids mean other streams. */
export class OtherStoreError extends Error {
  override name = "OtherStoreError";
}

export class Followed {
  readonly streamId: number;
  /** Lines before its head that the first subscription asked for. */
  readonly lastLines: number;
  #stream: Stream | null = null;
  /** Sequence after the last line that was handed on; null until the stream's bounds are known. */
  position: number | null = null;
  ended: StreamEnded | null = null;
  /** Why the relay gives nothing of it; null when it does. */
  failure: string | null = null;

  constructor(streamId: number, lastLines: number) {
    this.streamId = streamId;
    this.lastLines = lastLines;
  }

  /** There may be more to hand on. */
  get isOpen(): boolean {
    return this.ended === null && this.failure === null;
  }

  /** Takes over what the relay says; throws OtherStoreError when it speaks of another stream of the same id. */
  learn(stream: Stream): void {
    const known = this.#stream;
    const isSame =
      known === null ||
      (known.agentId === stream.agentId && known.instance === stream.instance && known.createdUnixUs === stream.createdUnixUs);
    if (!isSame) throw new OtherStoreError(`stream ${this.streamId} is another one than before`);
    this.#stream = stream;
    this.position ??= Math.max(Number(stream.firstSequence), Number(stream.nextSequence) - this.lastLines);
  }

  /** The stream for a subscription that joins: its lines begin where those that were handed on end. */
  get joined(): Stream | null {
    if (this.#stream === null || this.position === null) return null;
    return Object.assign(clone(StreamSchema, this.#stream), { nextSequence: BigInt(this.position) });
  }

  forget(): void {
    this.#stream = null;
    this.position = null;
    this.ended = null;
    this.failure = null;
  }
}
