/** A tab's end of the port to the hub: subscriptions and lists as if the calls were made here. */
import { unpackLines } from "../block/packed";
import type { CatalogHandle, CatalogSource, CatalogUpdate } from "./catalog-source";
import { weightOf, type FromHub, type PortLike, type TailEvent, type ToHub } from "./port";
import type { TailHandle, TailListener, TailSource } from "./tail";

export class HubLink implements TailSource, CatalogSource {
  readonly #port: PortLike;
  readonly #listeners = new Map<number, TailListener>();
  readonly #watchers = new Set<(update: CatalogUpdate) => void>();
  readonly #welcome: () => void;
  #nextId = 1;

  /** `lockName` is a lock that this tab holds as long as it lives; `welcome` is called when the hub answers. */
  constructor(port: PortLike, lockName: string | null, welcome: () => void = () => undefined) {
    this.#port = port;
    this.#welcome = welcome;
    port.onmessage = (event) => this.#on(event.data as FromHub);
    this.#post({ kind: "hello", lockName });
  }

  follow(streamIds: readonly number[], lastLines: number, listener: TailListener): TailHandle {
    const id = this.#nextId;
    this.#nextId += 1;
    this.#listeners.set(id, listener);
    this.#post({ kind: "follow", id, streamIds, lastLines });
    return {
      retryNow: () => this.#post({ kind: "retry" }),
      close: () => {
        if (this.#listeners.delete(id)) this.#post({ kind: "leave", id });
      },
    };
  }

  watch(changed: (update: CatalogUpdate) => void): CatalogHandle {
    this.#watchers.add(changed);
    this.#post({ kind: "watch" });
    return {
      retryNow: () => this.#post({ kind: "retry" }),
      close: () => void this.#watchers.delete(changed),
    };
  }

  /** The tab goes away. */
  close(): void {
    this.#post({ kind: "bye" });
    this.#port.close();
  }

  #on(message: FromHub): void {
    switch (message.kind) {
      case "welcome":
        this.#welcome();
        break;
      case "tail": {
        let bytes = 0;
        for (const { id, event } of message.events) {
          const listener = this.#listeners.get(id);
          if (listener !== undefined) tell(listener, event);
          bytes += weightOf(event);
        }
        if (bytes > 0) this.#post({ kind: "taken", bytes, updates: 0 });
        break;
      }
      case "catalog":
        for (const watcher of this.#watchers) watcher(message.update);
        this.#post({ kind: "taken", bytes: 0, updates: 1 });
        break;
    }
  }

  #post(message: ToHub): void {
    this.#port.postMessage(message);
  }
}

function tell(listener: TailListener, event: TailEvent): void {
  switch (event.kind) {
    case "phase":
      listener.phase(event.phase);
      break;
    case "stream":
      listener.stream(event.stream);
      break;
    case "lines":
      listener.lines(unpackLines(event.lines));
      break;
    case "gap":
      listener.gap(event.gap);
      break;
    case "ended":
      listener.ended(event.ended);
      break;
    case "heads":
      listener.heads(event.heads);
      break;
    case "skipped":
      listener.skipped(event.streamId, event.next);
      break;
    case "reset":
      listener.reset();
      break;
  }
}
