import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { EndReason, StreamEndSchema } from "../../gen/millstream/v1/stream_pb";
import { unpackLines } from "../block/packed";
import { textOf, type TestLine } from "../testing/blocks";
import { FakeLogService } from "../testing/fake-log-service";
import { HubLink } from "./hub-link";
import { HubServer } from "./hub-server";
import type { FromHub, PortLike, TailEvent, ToHub } from "./port";
import { Spacing, StreamingHealth, type HealthOptions } from "./streaming-health";
import type { Phase, TailHandle, TailSource } from "./tail";
import { TailHub } from "./tail-hub";

/** Milliseconds instead of seconds, so that what takes long in a browser does not here. */
const QUICK: HealthOptions = { limits: { firstMs: 150, nextMs: 1_000 }, promptMs: 1_000, trialMs: 100, trialCapMs: 100 };

/** A subscription that keeps what it is told. */
class Reader {
  readonly lines = new Map<number, { sequence: number; text: string }[]>();
  readonly phases: Phase[] = [];
  readonly ends: number[] = [];
  readonly gaps: string[] = [];
  readonly skips: { streamId: number; next: number }[] = [];
  resets = 0;
  readonly #handle: TailHandle;

  constructor(source: TailSource, streamIds: readonly number[], lastLines = 1_000) {
    this.#handle = source.follow(streamIds, lastLines, {
      phase: (phase) => this.phases.push(phase),
      stream: () => undefined,
      gap: ({ streamId, firstSequence, nextSequence, message }) => this.gaps.push(`${streamId}: [${firstSequence}, ${nextSequence}) ${message}`),
      heads: () => undefined,
      ended: ({ streamId }) => this.ends.push(Number(streamId)),
      skipped: (streamId, next) => this.skips.push({ streamId, next }),
      lines: (lines) => {
        const said = lines.slice().map((line) => ({ sequence: line.sequence, text: textOf(line) }));
        this.lines.set(lines.streamId, [...(this.lines.get(lines.streamId) ?? []), ...said]);
      },
      reset: () => {
        this.resets += 1;
        this.lines.clear();
      },
    });
  }

  get phase(): Phase["kind"] | undefined {
    return this.phases.at(-1)?.kind;
  }

  sequences(streamId: number): number[] {
    return (this.lines.get(streamId) ?? []).map(({ sequence }) => sequence);
  }

  close(): void {
    this.#handle.close();
  }
}

const open: { close(): void }[] = [];
afterEach(() => {
  for (const each of open.splice(0)) each.close();
});

function hubOf(service: FakeLogService): TailHub {
  const client = service.client();
  const health = new StreamingHealth(client, QUICK);
  open.push(health);
  return new TailHub(client, health);
}

function read(source: TailSource, streamIds: readonly number[], lastLines?: number): Reader {
  const reader = new Reader(source, streamIds, lastLines);
  open.push(reader);
  return reader;
}

const numbered = (count: number, from = 0): TestLine[] => Array.from({ length: count }, (_, at) => ({ text: `line ${from + at}` }));
const until = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 30_000, interval: 2 });
const dense = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, at) => from + at);

describe("one call for all", () => {
  test("a pane that is added or closed costs the others no line, and there is one call", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(10));
    service.add(2, numbered(20));
    const hub = hubOf(service);
    const first = read(hub, [1]);
    await until(() => expect(first.phase).toBe("live"));
    service.append(1, numbered(5, 10));
    const second = read(hub, [1, 2], 3);
    service.append(1, numbered(5, 15));
    service.append(2, numbered(1, 20));
    await until(() => expect(second.phase).toBe("live"));
    await until(() => expect(first.sequences(1)).toEqual(dense(0, 20)));
    expect(service.openTails).toBe(1);
    expect(second.sequences(2).at(-1)).toBe(20);
    second.close();
    service.append(1, numbered(5, 20));
    await until(() => expect(first.sequences(1)).toEqual(dense(0, 25)));
    await until(() => expect(service.openTails).toBe(1));
    expect(first.phases.map(({ kind }) => kind), "others came and went without a word").toEqual(["connecting", "catching-up", "live"]);
    first.close();
    await until(() => expect(service.openTails).toBe(0));
  });

  test("whoever joins a stream that is followed gets what comes from then on", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(10));
    const hub = hubOf(service);
    const first = read(hub, [1]);
    await until(() => expect(first.phase).toBe("live"));
    const second = read(hub, [1]);
    expect(second.phase).toBe("live");
    service.append(1, numbered(2, 10));
    await until(() => expect(second.sequences(1)).toEqual([10, 11]));
    expect(service.tails).toHaveLength(1);
  });

  test("a stream that is not there is the matter of its pane alone", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(3));
    const hub = hubOf(service);
    const lost = read(hub, [9]);
    const mixed = read(hub, [1, 9]);
    const good = read(hub, [1]);
    await until(() => expect(lost.phases.at(-1)).toEqual({ kind: "failed", reason: "There is no stream 9" }));
    await until(() => expect(mixed.sequences(1)).toEqual([0, 1, 2]));
    await until(() => expect([mixed.phase, good.phase]).toEqual(["live", "live"]));
  });

  test("a stream that has ended leaves the others alone, and tells who comes later", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(3));
    service.add(2, numbered(3));
    const hub = hubOf(service);
    const both = read(hub, [1, 2]);
    await until(() => expect(both.phase).toBe("live"));
    service.end(2, create(StreamEndSchema, { reason: EndReason.EXITED, exitCode: 1 }));
    await until(() => expect(both.ends).toEqual([2]));
    const late = read(hub, [2]);
    await until(() => expect([late.phase, late.ends]).toEqual(["ended", [2]]));
    service.append(1, numbered(1, 3));
    await until(() => expect(both.sequences(1)).toEqual(dense(0, 4)));
    service.end(1, create(StreamEndSchema, { reason: EndReason.EXITED, exitCode: 0 }));
    await until(() => expect(both.phase).toBe("ended"));
    await until(() => expect(service.openTails).toBe(0));
  });

  test("a block that breaks the format is a gap in its stream, and nobody's else matter", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(3));
    service.add(2, numbered(3));
    const reader = read(hubOf(service), [1, 2]);
    await until(() => expect(reader.phase).toBe("live"));
    service.broken.add(1);
    service.append(1, numbered(2, 3));
    await until(() => expect(reader.gaps).toEqual(["1: [3, 5) the relay sent a broken block (column flags: a run of 0 lines)"]));
    service.broken.clear();
    service.append(1, numbered(1, 5));
    service.append(2, numbered(1, 3));
    await until(() => expect([reader.sequences(1), reader.sequences(2)]).toEqual([[0, 1, 2, 5], [0, 1, 2, 3]]));
    expect(reader.phases.map(({ kind }) => kind)).not.toContain("reconnecting");
  });

  test("another store is said, also where the same ids mean other streams", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(10));
    const hub = hubOf(service);
    const reader = read(hub, [1]);
    await until(() => expect(reader.phase).toBe("live"));
    service.store = 2;
    service.streams.clear();
    service.add(1, numbered(2));
    service.breakCalls(Code.Unavailable, "the relay is stopping");
    await until(() => expect(reader.phase).toBe("reconnecting"));
    hub.retryNow();
    await until(() => expect(reader.resets).toBe(1));
    hub.retryNow();
    await until(() => expect(reader.sequences(1)).toEqual([0, 1]));
  });

  test("whatever comes, goes and breaks, no line is lost, doubled or out of order", async () => {
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.record({ kind: fc.constant("append" as const), stream: fc.integer({ min: 1, max: 3 }), lines: fc.integer({ min: 1, max: 9 }) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("join" as const), streams: fc.uniqueArray(fc.integer({ min: 1, max: 3 }), { minLength: 1 }) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("leave" as const), at: fc.nat(5) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("break" as const) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("breathe" as const) }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 25 }), async (steps) => {
        const service = new FakeLogService();
        for (const id of [1, 2, 3]) service.add(id, numbered(5));
        const hub = hubOf(service);
        const readers: { reader: Reader; streams: number[] }[] = [];
        for (const each of steps) {
          if (each.kind === "append") service.append(each.stream, numbered(each.lines, service.streams.get(each.stream)?.lines.length));
          else if (each.kind === "join") readers.push({ reader: read(hub, each.streams), streams: each.streams });
          else if (each.kind === "leave") readers.splice(each.at, 1).forEach(({ reader }) => reader.close());
          else if (each.kind === "break") service.breakCalls(Code.Unavailable, "broken on purpose");
          else await new Promise((resolve) => setTimeout(resolve, 1));
        }
        service.breakCalls(Code.Unavailable, "broken at last");
        for (const id of [1, 2, 3]) service.append(id, numbered(1, service.streams.get(id)?.lines.length));
        for (const { reader, streams } of readers) {
          await until(() => {
            hub.retryNow();
            for (const id of streams) expect(reader.sequences(id).at(-1)).toBe((service.streams.get(id)?.lines.length ?? 0) - 1);
          });
          for (const id of streams) {
            const seen = reader.lines.get(id) ?? [];
            const from = seen[0]?.sequence ?? 0;
            expect(seen).toEqual(seen.map((_, at) => ({ sequence: from + at, text: `line ${from + at}` })));
          }
        }
        for (const { reader } of readers) reader.close();
      }),
      { numRuns: 40 },
    );
  }, 60_000);
});

describe("a proxy that holds back the stream", () => {
  test("is found out; lines are read by pages until it lets the stream through", async () => {
    const service = new FakeLogService();
    service.heartbeatMs = 40;
    service.add(1, numbered(10));
    service.holdsBack = true;
    const hub = hubOf(service);
    const reader = read(hub, [1]);
    await until(() => expect(reader.phase).toBe("polling"));
    service.append(1, numbered(5, 10));
    await until(() => expect(reader.sequences(1)).toEqual(dense(0, 15)));
    service.holdsBack = false;
    await until(() => expect(reader.phase).toBe("live"));
    service.append(1, numbered(5, 15));
    await until(() => expect(reader.sequences(1)).toEqual(dense(0, 20)));
  });

  test("a run that ends is told by pages too", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(3));
    service.holdsBack = true;
    const reader = read(hubOf(service), [1]);
    await until(() => expect(reader.phase).toBe("polling"));
    service.end(1, create(StreamEndSchema, { reason: EndReason.EXITED, exitCode: 0 }));
    await until(() => expect([reader.phase, reader.ends]).toEqual(["ended", [1]]));
  });

  test("shows by heartbeats that come in a bunch, not by one that is a little late", () => {
    const bunches: number[] = [];
    const spacing = new Spacing(() => bunches.push(1));
    const sent = (seconds: number): bigint => BigInt(seconds) * 1_000_000n;
    spacing.heartbeat(sent(0), 100_000);
    spacing.heartbeat(sent(10), 113_000);
    spacing.heartbeat(sent(20), 120_000);
    expect(bunches).toEqual([]);
    spacing.heartbeat(sent(30), 120_010);
    expect(bunches).toEqual([1]);
  });
});

describe("through ports", () => {
  function linkTo(server: HubServer): HubLink {
    const { port1, port2 } = new MessageChannel();
    server.connect(port1);
    const link = new HubLink(port2, null);
    open.push(link);
    return link;
  }

  test("tabs share one call and each gets every line", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(10));
    const server = new HubServer(service.client(), QUICK);
    open.push(server);
    const readers = [linkTo(server), linkTo(server), linkTo(server)].map((link) => read(link, [1]));
    for (const reader of readers) await until(() => expect(reader.phase).toBe("live"));
    service.append(1, numbered(10, 10));
    for (const reader of readers) {
      await until(() => expect(reader.sequences(1).at(-1)).toBe(19));
      expect(reader.sequences(1)).toEqual(dense(reader.sequences(1)[0] ?? 0, 20));
    }
    expect(service.openTails).toBe(1);
    for (const each of open.splice(0)) each.close();
    await until(() => expect(service.openTails).toBe(0));
  });

  /** A port that delivers nothing: of a frozen tab that follows stream 1. */
  function frozenTab(server: HubServer): { messages: FromHub[]; events: () => TailEvent[]; say: (message: ToHub) => void } {
    const messages: FromHub[] = [];
    const port: PortLike = { postMessage: (message) => messages.push(message as FromHub), onmessage: null, close: () => undefined };
    server.connect(port);
    const say = (data: ToHub): void => port.onmessage?.({ data } as MessageEvent);
    say({ kind: "hello", lockName: null });
    say({ kind: "follow", id: 1, streamIds: [1], lastLines: 10 });
    return { messages, events: () => messages.flatMap((message) => (message.kind === "tail" ? message.events.map(({ event }) => event) : [])), say };
  }

  test("what comes faster than pages paint travels together, in order", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(1));
    const server = new HubServer(service.client(), QUICK);
    open.push(server);
    const { messages, events } = frozenTab(server);
    await until(() => expect(events().some((event) => event.kind === "phase" && event.phase.kind === "live")).toBe(true));
    const before = messages.length;
    const beganMs = performance.now();
    for (let at = 1; at <= 400; at += 1) {
      service.append(1, numbered(1, at));
      await new Promise((resolve) => setImmediate(resolve));
    }
    const sequences = (): number[] => events().flatMap((event) => (event.kind === "lines" ? [...unpackLines(event.lines).sequences] : []));
    await until(() => expect(sequences().at(-1)).toBe(400));
    expect(sequences()).toEqual(dense(sequences()[0] ?? 0, 401));
    const bundles = messages.filter((message) => message.kind === "tail").map(({ events }) => events.filter(({ event }) => event.kind === "lines"));
    expect(bundles.every(({ length }) => length <= 1), "in one buffer").toBe(true);
    // Four milliseconds, of which a timer may leave a little out.
    expect(messages.length - before).toBeLessThan((performance.now() - beganMs) / 3 + 3);
  });

  test("a tab that does not keep up is told what it did not get; the others get it", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(1));
    const server = new HubServer(service.client(), QUICK);
    open.push(server);
    const { events, say } = frozenTab(server);
    const reader = read(linkTo(server), [1]);
    await until(() => expect(reader.phase).toBe("live"));
    const long = "x".repeat(500_000);
    for (let at = 1; at <= 20; at += 1) {
      service.append(1, [{ text: long }]);
      await until(() => expect(reader.sequences(1).at(-1)).toBe(at));
    }
    const bytes = events().reduce((sum, event) => sum + (event.kind === "lines" ? event.lines.buffer.byteLength : 0), 0);
    expect(bytes).toBeLessThan(8 * 1_048_576);
    say({ kind: "taken", bytes, updates: 0 });
    await until(() => expect(events().at(-1)).toEqual({ kind: "skipped", streamId: 1, next: 21 }));
    service.append(1, [{ text: "after" }]);
    await until(() => expect(events().at(-1)).toMatchObject({ kind: "lines", lines: { count: 1 } }));
  });

  test("lists come whole, then what changed", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(10));
    service.holdsBack = true;
    const server = new HubServer(service.client(), QUICK);
    open.push(server);
    const link = linkTo(server);
    read(link, [1]);
    const updates: { isWhole: boolean; isPolled: boolean; ids: number[] }[] = [];
    link.watch(({ isWhole, isPolled, streams }) => updates.push({ isWhole, isPolled, ids: streams.map(({ streamId }) => Number(streamId)) }));
    await until(() => expect(updates.at(-1)).toEqual({ isWhole: true, isPolled: true, ids: [1] }));
  });
});
