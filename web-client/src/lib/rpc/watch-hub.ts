/** One Watch for any number of watchers: keeps the lists, tells changes in batches, reconnects by itself. */
import type { WatchResponse } from "../../gen/millstream/v1/log_pb";
import type { Agent, Stream } from "../../gen/millstream/v1/stream_pb";
import { Backoff, pause } from "./backoff";
import { PendingUpdate, type CatalogHandle, type CatalogSource, type CatalogState, type CatalogUpdate } from "./catalog-source";
import type { LogClient } from "./client";
import { describeFailure, SilenceError, StreamClosedError } from "./failure";
import type { StreamingHealth } from "./streaming-health";
import { watched } from "./watchdog";

/** Changes are told this often at most, milliseconds. */
const BATCH_MS = 100;

/** Time between two looks at the lists while they are polled, milliseconds. */
const POLL_MS = 4_000;

const PAGE_SIZE = 1_000;

type Tell = (update: CatalogUpdate) => void;

export class WatchHub implements CatalogSource {
  readonly #client: LogClient;
  readonly #health: StreamingHealth;
  readonly #watchers = new Set<Tell>();
  readonly #backoff = new Backoff();
  readonly #pending = new PendingUpdate();
  #streams = new Map<number, Stream>();
  #agents = new Map<string, Agent>();
  #state: CatalogState = { kind: "connecting" };
  #isRunning = false;
  #attempt = new AbortController();
  #wake = new AbortController();
  #isTelling = false;

  constructor(client: LogClient, health: StreamingHealth) {
    this.#client = client;
    this.#health = health;
    health.changed.add(() => this.#attempt.abort());
  }

  watch(changed: Tell): CatalogHandle {
    this.#watchers.add(changed);
    changed({
      state: this.#state,
      isPolled: this.#isPolled,
      isWhole: true,
      streams: [...this.#streams.values()],
      removed: [],
      agents: [...this.#agents.values()],
    });
    if (!this.#isRunning) void this.#run();
    return {
      retryNow: () => this.retryNow(),
      close: () => {
        this.#watchers.delete(changed);
        if (this.#watchers.size === 0) this.#attempt.abort();
      },
    };
  }

  retryNow(): void {
    this.#wake.abort();
  }

  get #isPolled(): boolean {
    return this.#health.mode === "polling";
  }

  /** Runs while somebody watches. Never rejects. */
  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#watchers.size > 0) {
      const attempt = new AbortController();
      this.#attempt = attempt;
      let askedToWaitMs: number;
      try {
        if (this.#isPolled) await this.#poll(attempt.signal);
        else await this.#follow(attempt.signal);
        if (attempt.signal.aborted) continue;
        throw new StreamClosedError();
      } catch (error) {
        if (attempt.signal.aborted) continue;
        if (error instanceof SilenceError && (await this.#health.explainsSilence(error))) continue;
        const failure = describeFailure(error);
        askedToWaitMs = failure.retryAfterMs ?? 0;
        this.#become({ kind: "unreachable", reason: failure.message });
      }
      this.#wake = new AbortController();
      await pause(askedToWaitMs + this.#backoff.next(), this.#wake.signal, attempt.signal);
    }
    this.#isRunning = false;
  }

  /** What is known stays in view until the new lists are complete; then what is gone goes. */
  async #follow(signal: AbortSignal): Promise<void> {
    const streams = new Map<number, Stream>();
    const agents = new Map<string, Agent>();
    const spacing = this.#health.spacing();
    let isComplete = false;
    const open = (call: AbortSignal): AsyncIterable<WatchResponse> => this.#client.watch({}, { signal: call });
    for await (const { message } of watched(open, signal, this.#health.limits)) {
      switch (message.case) {
        case "stream":
          streams.set(Number(message.value.streamId), message.value);
          if (isComplete) this.#tell({ streams: [message.value] });
          break;
        case "agent":
          agents.set(message.value.agentId, message.value);
          if (isComplete) this.#tell({ agents: [message.value] });
          break;
        case "removedStreamId":
          streams.delete(Number(message.value));
          if (isComplete) this.#tell({ removed: [Number(message.value)] });
          break;
        case "snapshotDone":
          isComplete = true;
          this.#replace(streams, agents);
          break;
        case "heartbeat":
          spacing.heartbeat(message.value.serverUnixUs);
          break;
        case undefined:
          break;
      }
    }
  }

  async #poll(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const streams = new Map<number, Stream>();
      for (let pageToken = ""; ; ) {
        const page = await this.#client.listStreams({ pageSize: PAGE_SIZE, pageToken }, { signal });
        for (const stream of page.streams) streams.set(Number(stream.streamId), stream);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      const agents = new Map<string, Agent>();
      for (let pageToken = ""; ; ) {
        const page = await this.#client.listAgents({ pageSize: PAGE_SIZE, pageToken }, { signal });
        for (const agent of page.agents) agents.set(agent.agentId, agent);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      this.#replace(streams, agents);
      await pause(POLL_MS, signal);
    }
  }

  #replace(streams: Map<number, Stream>, agents: Map<string, Agent>): void {
    this.#streams = streams;
    this.#agents = agents;
    this.#backoff.reset();
    this.#state = { kind: "complete" };
    this.#tell({ isWhole: true, streams: [...streams.values()], agents: [...agents.values()] });
  }

  #become(state: CatalogState): void {
    this.#state = state;
    this.#tell({});
  }

  #tell(update: Partial<CatalogUpdate>): void {
    this.#pending.add(update);
    if (this.#isTelling) return;
    this.#isTelling = true;
    setTimeout(() => {
      this.#isTelling = false;
      const told = this.#pending.take(this.#state, this.#isPolled);
      for (const watcher of this.#watchers) watcher(told);
    }, BATCH_MS);
  }
}
