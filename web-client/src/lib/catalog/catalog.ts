/**
 * Every stream and agent the relay knows, kept up to date by one Watch call that reconnects by itself.
 */
import type { Agent, Stream } from "../../gen/millstream/v1/stream_pb";
import { Backoff, pause } from "../rpc/backoff";
import type { LogClient } from "../rpc/client";
import { describeFailure, StreamClosedError } from "../rpc/failure";
import { watched } from "../rpc/watchdog";

export type CatalogState =
  | { readonly kind: "connecting" }
  | { readonly kind: "complete" }
  | { readonly kind: "unreachable"; readonly reason: string };

export class Catalog {
  readonly #client: LogClient;
  readonly #changed: () => void;
  readonly #stop = new AbortController();
  readonly #backoff = new Backoff();
  #wake = new AbortController();
  #streams = new Map<number, Stream>();
  #agents = new Map<string, Agent>();
  #state: CatalogState = { kind: "connecting" };

  /** `changed` is called after every change: paint on the next frame. */
  constructor(client: LogClient, changed: () => void) {
    this.#client = client;
    this.#changed = changed;
  }

  get streams(): ReadonlyMap<number, Stream> {
    return this.#streams;
  }

  get agents(): ReadonlyMap<string, Agent> {
    return this.#agents;
  }

  get state(): CatalogState {
    return this.#state;
  }

  /** Runs until `close`. Never rejects. */
  async run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await this.#watch();
        throw new StreamClosedError();
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        this.#set({ kind: "unreachable", reason: describeFailure(error).message });
      }
      await pause(this.#backoff.next(), this.#wake.signal);
      if (!this.#stop.signal.aborted) this.#wake = new AbortController();
    }
  }

  retryNow(): void {
    this.#wake.abort();
  }

  close(): void {
    this.#stop.abort();
    this.#wake.abort();
  }

  /** What is known stays in view until the new lists are complete; then what is gone goes. */
  async #watch(): Promise<void> {
    const streams = new Map<number, Stream>();
    const agents = new Map<string, Agent>();
    let complete = false;
    for await (const { message } of watched((signal) => this.#client.watch({}, { signal }), this.#stop.signal)) {
      switch (message.case) {
        case "stream":
          streams.set(Number(message.value.streamId), message.value);
          break;
        case "agent":
          agents.set(message.value.agentId, message.value);
          break;
        case "removedStreamId":
          streams.delete(Number(message.value));
          break;
        case "snapshotDone":
          complete = true;
          this.#streams = streams;
          this.#agents = agents;
          this.#backoff.reset();
          this.#set({ kind: "complete" });
          break;
        default:
          break;
      }
      if (complete) this.#changed();
    }
  }

  #set(state: CatalogState): void {
    this.#state = state;
    this.#changed();
  }
}
