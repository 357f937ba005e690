/** The contract between whoever shows the lists of streams and agents and whoever fetches them. */
import type { Agent, Stream } from "../../gen/millstream/v1/stream_pb";

export type CatalogState =
  | { readonly kind: "connecting" }
  | { readonly kind: "complete" }
  | { readonly kind: "unreachable"; readonly reason: string };

/** What changed since the update before. */
export interface CatalogUpdate {
  readonly state: CatalogState;
  /** The live stream of changes is held back on the way; the lists are read again and again. */
  readonly isPolled: boolean;
  /** These are the whole lists: what is not among them is gone. */
  readonly isWhole: boolean;
  readonly streams: readonly Stream[];
  readonly removed: readonly number[];
  readonly agents: readonly Agent[];
}

export interface CatalogSource {
  /** The lists as they are, then their changes, a few times a second at most. Returns how to stop. */
  watch(changed: (update: CatalogUpdate) => void): CatalogHandle;
}

export interface CatalogHandle {
  retryNow(): void;
  close(): void;
}

/** Changes that wait to be told: at most the newest of each stream and agent. */
export class PendingUpdate {
  #streams = new Map<number, Stream>();
  #removed = new Set<number>();
  #agents = new Map<string, Agent>();
  #isWhole = false;
  #isEmpty = true;

  get isEmpty(): boolean {
    return this.#isEmpty;
  }

  add(update: Partial<CatalogUpdate>): void {
    this.#isEmpty = false;
    if (update.isWhole === true) {
      this.#streams.clear();
      this.#removed.clear();
      this.#agents.clear();
      this.#isWhole = true;
    }
    for (const stream of update.streams ?? []) {
      this.#streams.set(Number(stream.streamId), stream);
      this.#removed.delete(Number(stream.streamId));
    }
    for (const id of update.removed ?? []) {
      this.#streams.delete(id);
      this.#removed.add(id);
    }
    for (const agent of update.agents ?? []) this.#agents.set(agent.agentId, agent);
  }

  take(state: CatalogState, isPolled: boolean): CatalogUpdate {
    const update = {
      state,
      isPolled,
      isWhole: this.#isWhole,
      streams: [...this.#streams.values()],
      removed: [...this.#removed],
      agents: [...this.#agents.values()],
    };
    this.#streams = new Map();
    this.#removed = new Set();
    this.#agents = new Map();
    this.#isWhole = false;
    this.#isEmpty = true;
    return update;
  }
}
