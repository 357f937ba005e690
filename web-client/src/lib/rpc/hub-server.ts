/**
 * The end of a port at which the calls are made: one Tail and one Watch for all ports. A tab that does not
 * keep up (it is frozen, or busy) is not sent more than a bounded amount; afterwards it is told which lines
 * it did not get. They are stored, and it reads those that it wants to show.
 */
import { PendingUpdate, type CatalogHandle, type CatalogUpdate } from "./catalog-source";
import type { LogClient } from "./client";
import type { FromHub, PortEvent, PortLike, TailEvent, ToHub } from "./port";
import { StreamingHealth, type HealthOptions } from "./streaming-health";
import type { TailHandle, TailListener } from "./tail";
import { TailHub } from "./tail-hub";
import { WatchHub } from "./watch-hub";
import { MAX_BLOCK_TEXT_BYTES, type Lines } from "../block/lines";
import { pack, packedBytes } from "../block/packed";

/** Lines on their way to one tab, bytes; when full, lines are skipped for it. */
const MAX_UNTAKEN_BYTES = 8 * 1_048_576;

/**
 * Milliseconds between two messages to a tab. A stream that is written line by line comes in a thousand blocks a second,
 * and a page paints sixty times: what comes in between travels together.
 */
const SPACING_MS = 4;

export class HubServer {
  readonly #health: StreamingHealth;
  readonly #tails: TailHub;
  readonly #watch: WatchHub;
  readonly #ports = new Set<HubPort>();

  constructor(client: LogClient, options?: HealthOptions) {
    this.#health = new StreamingHealth(client, options);
    this.#tails = new TailHub(client, this.#health);
    this.#watch = new WatchHub(client, this.#health);
  }

  connect(port: PortLike): void {
    const hubPort = new HubPort(port, this.#tails, this.#watch, () => this.#ports.delete(hubPort));
    this.#ports.add(hubPort);
  }

  retryNow(): void {
    this.#tails.retryNow();
    this.#watch.retryNow();
  }

  close(): void {
    for (const port of [...this.#ports]) port.close();
    this.#health.close();
  }
}

/** Lines of one subscription that go in one event of the next message. */
interface Bundle {
  readonly id: number;
  readonly parts: Lines[];
  bytes: number;
}

class HubPort {
  readonly #port: PortLike;
  readonly #tails: TailHub;
  readonly #watch: WatchHub;
  readonly #gone: () => void;
  readonly #handles = new Map<number, TailHandle>();
  readonly #pending = new PendingUpdate();
  #catalog: CatalogHandle | null = null;
  #last: CatalogUpdate | null = null;
  /** What goes with the next message; its bytes count as on their way. */
  #events: (PortEvent | Bundle)[] = [];
  #sentMs = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #untakenBytes = 0;
  #untakenUpdates = 0;
  /** By subscription and stream, the sequence after the lines that were skipped. */
  readonly #skipped = new Map<number, Map<number, number>>();

  constructor(port: PortLike, tails: TailHub, watch: WatchHub, gone: () => void) {
    this.#port = port;
    this.#tails = tails;
    this.#watch = watch;
    this.#gone = gone;
    port.onmessage = (event) => this.#on(event.data as ToHub);
  }

  close(): void {
    for (const handle of this.#handles.values()) handle.close();
    this.#handles.clear();
    this.#catalog?.close();
    clearTimeout(this.#timer);
    this.#port.close();
    this.#gone();
  }

  #on(message: ToHub): void {
    switch (message.kind) {
      case "hello":
        this.#post({ kind: "welcome" });
        // The lock is free once the tab is gone, however it went.
        if (message.lockName !== null) void navigator.locks.request(message.lockName, () => this.close());
        break;
      case "follow":
        this.#handles.set(message.id, this.#tails.follow(message.streamIds, message.lastLines, this.#listener(message.id)));
        break;
      case "leave":
        this.#handles.get(message.id)?.close();
        this.#handles.delete(message.id);
        this.#skipped.delete(message.id);
        break;
      case "watch":
        this.#catalog ??= this.#watch.watch((update) => this.#onUpdate(update));
        break;
      case "retry":
        this.#tails.retryNow();
        this.#watch.retryNow();
        break;
      case "taken":
        this.#untakenBytes -= message.bytes;
        this.#untakenUpdates -= message.updates;
        if (this.#untakenBytes < MAX_UNTAKEN_BYTES / 2) this.#tellSkipped();
        this.#sendUpdate();
        break;
      case "bye":
        this.close();
        break;
    }
  }

  #listener(id: number): TailListener {
    const send = (event: TailEvent): void => this.#send(id, event);
    return {
      phase: (phase) => send({ kind: "phase", phase }),
      stream: (stream) => send({ kind: "stream", stream }),
      lines: (lines) => this.#sendLines(id, lines),
      gap: (gap) => send({ kind: "gap", gap }),
      ended: (ended) => send({ kind: "ended", ended }),
      heads: (heads) => send({ kind: "heads", heads }),
      skipped: (streamId, next) => send({ kind: "skipped", streamId, next }),
      reset: () => send({ kind: "reset" }),
    };
  }

  #send(id: number, event: TailEvent): void {
    if (event.kind === "reset") this.#skipped.delete(id);
    this.#put({ id, event });
  }

  #sendLines(id: number, lines: Lines): void {
    const { streamId } = lines;
    const bytes = packedBytes(lines);
    const skipped = this.#skipped.get(id) ?? new Map<number, number>();
    // Once lines of a stream were skipped, later ones wait until the tab knows of it.
    if (skipped.has(streamId) || this.#untakenBytes + bytes > MAX_UNTAKEN_BYTES) {
      skipped.set(streamId, lines.nextSequence);
      this.#skipped.set(id, skipped);
      return;
    }
    this.#untakenBytes += bytes;
    // A row that is kept keeps all that came in its bundle: no more than what a block may be.
    const last = this.#events.at(-1);
    const goesOn = last !== undefined && "parts" in last && last.id === id && last.parts[0]?.streamId === streamId;
    if (goesOn && last.bytes + bytes <= MAX_BLOCK_TEXT_BYTES) {
      last.parts.push(lines);
      last.bytes += bytes;
    } else {
      this.#put({ id, parts: [lines], bytes });
    }
  }

  /** Sends at once after a pause, and otherwise with what comes until the next message is due. */
  #put(event: PortEvent | Bundle): void {
    this.#events.push(event);
    if (this.#timer !== undefined) return;
    const waitMs = this.#sentMs + SPACING_MS - performance.now();
    if (waitMs <= 0) this.#flush();
    else this.#timer = setTimeout(() => this.#flush(), waitMs);
  }

  #flush(): void {
    this.#timer = undefined;
    this.#sentMs = performance.now();
    const buffers: ArrayBuffer[] = [];
    const events = this.#events.map((each): PortEvent => {
      if (!("parts" in each)) return each;
      const lines = pack(each.parts);
      buffers.push(lines.buffer);
      return { id: each.id, event: { kind: "lines", lines } };
    });
    this.#events = [];
    this.#post({ kind: "tail", events }, buffers);
  }

  #tellSkipped(): void {
    for (const [id, streams] of this.#skipped) {
      for (const [streamId, next] of streams) this.#put({ id, event: { kind: "skipped", streamId, next } });
    }
    this.#skipped.clear();
  }

  #onUpdate(update: CatalogUpdate): void {
    this.#last = update;
    this.#pending.add(update);
    this.#sendUpdate();
  }

  /** One update is on its way at a time; meanwhile changes of the same stream replace each other. */
  #sendUpdate(): void {
    if (this.#untakenUpdates > 0 || this.#pending.isEmpty || this.#last === null) return;
    this.#untakenUpdates += 1;
    this.#post({ kind: "catalog", update: this.#pending.take(this.#last.state, this.#last.isPolled) });
  }

  #post(message: FromHub, transfer: ArrayBuffer[] = []): void {
    this.#port.postMessage(message, { transfer });
  }
}
