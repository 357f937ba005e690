/** Every stream and agent the relay knows, kept up to date, and how fast each stream grew of late. */
import type { Agent, Stream } from "../../gen/millstream/v1/stream_pb";
import type { CatalogHandle, CatalogSource, CatalogState, CatalogUpdate } from "../rpc/catalog-source";
import { Rates } from "./rates";

export class Catalog {
  readonly #source: CatalogSource;
  readonly #changed: () => void;
  readonly rates = new Rates();
  #handle: CatalogHandle | null = null;
  #streams = new Map<number, Stream>();
  #agents = new Map<string, Agent>();
  #state: CatalogState = { kind: "connecting" };
  #isPolled = false;

  /** `changed` is called after every change: paint on the next frame. */
  constructor(source: CatalogSource, changed: () => void) {
    this.#source = source;
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

  /** Something between relay and page holds back what is live; the lists are read again and again. */
  get isPolled(): boolean {
    return this.#isPolled;
  }

  /** Watches until `close`. */
  open(): void {
    this.#handle = this.#source.watch((update) => this.#take(update));
  }

  retryNow(): void {
    this.#handle?.retryNow();
  }

  close(): void {
    this.#handle?.close();
  }

  #take(update: CatalogUpdate): void {
    this.#state = update.state;
    this.#isPolled = update.isPolled;
    if (update.isWhole) {
      this.#streams = new Map();
      this.#agents = new Map();
    }
    const nowMs = Date.now();
    for (const stream of update.streams) {
      this.#streams.set(Number(stream.streamId), stream);
      this.rates.note(Number(stream.streamId), Number(stream.nextSequence), nowMs);
    }
    for (const id of update.removed) {
      this.#streams.delete(id);
      this.rates.forget(id);
    }
    for (const agent of update.agents) this.#agents.set(agent.agentId, agent);
    this.#changed();
  }
}
