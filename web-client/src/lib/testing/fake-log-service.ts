/** A relay in memory: streams that a test appends to, served over an in-process transport. */
import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import { LogService, Severity, type SearchRequest, type TailRequest } from "../../gen/millstream/v1/log_pb";
import { StreamState, type StreamEnd } from "../../gen/millstream/v1/stream_pb";
import { severityOf } from "../markers/severity";
import type { LogClient } from "../rpc/client";
import { blockOf, varint, type TestLine } from "./blocks";

interface FakeStream {
  lines: TestLine[];
  end: StreamEnd | null;
}

export class FakeLogService {
  readonly streams = new Map<number, FakeStream>();
  readonly tails: TailRequest[] = [];
  reads = 0;
  searches = 0;
  /** Streams whose blocks break the format. */
  readonly broken = new Set<number>();
  canSearch = true;
  /** Calls of Tail to end after their first heartbeat. */
  hangUps = 0;
  /** Ends every open call with this error once. */
  #break: ConnectError | null = null;
  readonly #changes = new EventTarget();
  #version = 0;
  /** Calls of Tail that are open. */
  openTails = 0;
  /** Nothing of a Tail is let through: as a proxy does that waits for the end of an answer. */
  holdsBack = false;
  /** Whose streams these are: another number is another store. */
  store = 1;
  /** Milliseconds between heartbeats. */
  heartbeatMs = 10_000;

  add(streamId: number, lines: readonly TestLine[] = []): void {
    this.streams.set(streamId, { lines: [...lines], end: null });
  }

  append(streamId: number, lines: readonly TestLine[]): void {
    this.#find(streamId).lines.push(...lines);
    this.#notify();
  }

  end(streamId: number, end: StreamEnd): void {
    this.#find(streamId).end = end;
    this.#notify();
  }

  breakCalls(code: Code, message: string): void {
    this.#break = new ConnectError(message, code);
    this.#notify();
  }

  client(): LogClient {
    const find = (id: bigint): FakeStream => this.#find(Number(id));
    const describe = (id: number) => ({
      streamId: BigInt(id),
      nextSequence: BigInt(find(BigInt(id)).lines.length),
      state: StreamState.LIVE,
      createdUnixUs: BigInt(this.store),
      end: find(BigInt(id)).end ?? undefined,
    });
    const tail = this.#tail.bind(this);
    const search = this.#search.bind(this);
    const transport = createRouterTransport(({ service }) => {
      service(LogService, {
        read: (request) => {
          this.reads += 1;
          const { lines } = find(request.streamId);
          let from = request.from.case === "fromSequence" ? Number(request.from.value) : 0;
          if (request.from.case === "fromUnixUs") {
            const time = Number(request.from.value);
            const at = lines.findIndex((line) => (line.timeUs ?? 0) >= time);
            from = at < 0 ? lines.length : at;
          }
          const to = Math.min(lines.length, Number(request.toSequence) || lines.length, from + (request.maxLines || 700));
          return {
            blocks: from < to ? [blockOf(from, lines.slice(from, to))] : [],
            nextSequence: BigInt(Math.max(from, to)),
            stream: describe(Number(request.streamId)),
          };
        },
        search: (request) => search(request),
        tail: (request, { signal }) => tail(request, signal, describe),
        listAgents: () => ({}),
        listStreams: () => ({ streams: [...this.streams.keys()].map(describe) }),
      });
    });
    return createClient(LogService, transport);
  }

  async *#search(request: SearchRequest) {
    this.searches += 1;
    if (!this.canSearch) throw new ConnectError("Search is not served.", Code.Unimplemented);
    for (const id of request.streamIds) {
      const hits: TestLine[] = [];
      const sequences: number[] = [];
      const severities = request.filter?.severities ?? [];
      const regex = request.filter?.regex ? new RegExp(request.filter.regex, "m") : null;
      for (const [sequence, line] of this.#find(Number(id)).lines.entries()) {
        const text = typeof line.text === "string" ? line.text : new TextDecoder().decode(line.text);
        if (regex !== null && !regex.test(text)) continue;
        if (severities.length > 0 && !severities.includes(line.severity || (severityOf(text) === "error" ? Severity.ERROR : Severity.NONE))) continue;
        if (hits.length === request.maxHits) break;
        hits.push(line);
        sequences.push(sequence);
      }
      const steps = sequences.flatMap((sequence, at) => [...varint(at === 0 ? 0 : sequence - (sequences[at - 1] ?? 0)), 1]);
      if (hits.length > 0) yield { message: { case: "hits" as const, value: { streamId: id, block: blockOf(sequences[0] ?? 0, hits, { sequences: new Uint8Array(steps) }) } } };
    }
    yield { message: { case: "progress" as const, value: { done: true } } };
  }

  async *#tail(request: TailRequest, signal: AbortSignal, describe: (id: number) => { streamId: bigint; nextSequence: bigint }) {
    this.tails.push(request);
    this.openTails += 1;
    let isOpen = true;
    // A generator that waits in a yield is not told that nobody listens any more; the signal is.
    const close = (): void => {
      if (isOpen) this.openTails -= 1;
      isOpen = false;
      this.#notify();
    };
    signal.addEventListener("abort", close, { once: true });
    try {
      if (this.holdsBack) await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      else yield* this.#deliver(request, signal, describe);
    } finally {
      close();
    }
  }

  async *#deliver(request: TailRequest, signal: AbortSignal, describe: (id: number) => { streamId: bigint; nextSequence: bigint }) {
    if (request.start.case === "cursor" && storeOf(request.start.value) !== this.store) {
      throw new ConnectError("the cursor is of another store", Code.FailedPrecondition);
    }
    const cursor = (): Uint8Array<ArrayBuffer> => cursorOf(this.store, next);
    const beat = () => ({ message: { case: "heartbeat" as const, value: { cursor: cursor(), serverUnixUs: BigInt(Date.now() * 1_000) } } });
    const next = new Map<number, number>();
    const ended = new Set<number>();
    for (const id of request.streamIds.map(Number)) {
      const { lines } = this.#find(id);
      const position = request.positions.find((each) => Number(each.streamId) === id);
      const last = request.start.case === "lastLines" ? Number(request.start.value) : 0;
      const known = request.start.case === "cursor" ? placesOf(request.start.value).get(id) : undefined;
      next.set(id, position ? Number(position.nextSequence) : (known ?? Math.max(0, lines.length - last)));
    }
    yield beat();
    let beatMs = Date.now();
    if (this.hangUps > 0) {
      this.hangUps -= 1;
      return;
    }
    for (const id of next.keys()) yield { message: { case: "stream" as const, value: describe(id) } };
    let isCaughtUp = false;
    while (!signal.aborted) {
      const seen = this.#version;
      for (const [id, from] of next) {
        const { lines, end } = this.#find(id);
        if (from < lines.length) {
          yield { message: { case: "block" as const, value: { streamId: BigInt(id), block: blockOf(from, lines.slice(from), this.broken.has(id) ? { flags: new Uint8Array([0, 0]) } : {}) } } };
          next.set(id, lines.length);
        }
        if (end !== null && !ended.has(id)) {
          ended.add(id);
          yield { message: { case: "streamEnded" as const, value: { streamId: BigInt(id), nextSequence: BigInt(lines.length), end } } };
        }
      }
      if (!isCaughtUp) yield { message: { case: "caughtUp" as const, value: { cursor: cursor() } } };
      isCaughtUp = true;
      if (Date.now() - beatMs >= this.heartbeatMs) {
        beatMs = Date.now();
        yield beat();
      }
      // What changed while a message was on its way must not be waited for.
      if (this.#version === seen && this.#break === null) {
        await new Promise((resolve) => {
          this.#changes.addEventListener("change", resolve, { once: true });
          setTimeout(resolve, this.heartbeatMs);
        });
      }
      if (this.#break !== null) {
        const error = this.#break;
        this.#break = null;
        throw error;
      }
    }
  }

  #find(streamId: number): FakeStream {
    const stream = this.streams.get(streamId);
    if (!stream) throw new ConnectError(`There is no stream ${streamId}.`, Code.NotFound);
    return stream;
  }

  #notify(): void {
    this.#version += 1;
    this.#changes.dispatchEvent(new Event("change"));
  }
}

function cursorOf(store: number, places: ReadonlyMap<number, number>): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify({ store, places: [...places] }));
}

function decode(cursor: Uint8Array): { store: number; places: [number, number][] } {
  return JSON.parse(new TextDecoder().decode(cursor)) as { store: number; places: [number, number][] };
}

function storeOf(cursor: Uint8Array): number {
  return decode(cursor).store;
}

function placesOf(cursor: Uint8Array): Map<number, number> {
  return new Map(decode(cursor).places);
}
