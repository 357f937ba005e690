import { Code } from "@connectrpc/connect";
import { create } from "@bufbuild/protobuf";
import { afterEach, describe, expect, test, vi } from "vitest";
import { EndReason, StreamEndSchema } from "../../gen/millstream/v1/stream_pb";
import { StreamingHealth } from "../rpc/streaming-health";
import { TailHub } from "../rpc/tail-hub";
import type { TestLine } from "../testing/blocks";
import { FakeLogService } from "../testing/fake-log-service";
import { describeState } from "./describe";
import { LogFeed } from "./feed";
import { parsed } from "./row";
import { FOLLOWED_ROWS, MAX_ROWS } from "./window";

const numbered = (count: number, from = 0, every = 1, name = "line"): TestLine[] =>
  Array.from({ length: count }, (_, at) => ({ text: `${name} ${from + at}`, timeUs: 1_000 + (from + at) * every }));

let feeds: LogFeed[] = [];
afterEach(() => {
  for (const feed of feeds) feed.close();
  feeds = [];
});

function open(service: FakeLogService, ids: number[], follows = true): LogFeed {
  const client = service.client();
  const hub = new TailHub(client, new StreamingHealth(client));
  const feed = new LogFeed(client, hub, ids, follows, () => undefined);
  feeds.push(feed);
  feed.open();
  return feed;
}

const texts = (feed: LogFeed): string[] => feed.rows.map((row) => (row.kind === "gap" ? "gap" : parsed(row).text));
const sequences = (feed: LogFeed): number[] => feed.rows.map((row) => row.sequence);
const until = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 5_000, interval: 5 });
const dense = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, at) => from + at);

describe("one stream", () => {
  test("opens at its end, however long it is, and follows", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(30_000));
    const feed = open(service, [1]);
    await until(() => expect(feed.phase.kind).toBe("live"));
    expect(sequences(feed)).toEqual(dense(29_000, 30_000));
    expect(service.reads, "its bounds, and no page").toBe(1);
    service.append(1, numbered(3, 30_000));
    await until(() => expect(sequences(feed).at(-1)).toBe(30_002));
    expect(feed.totalLines).toBe(30_003);
    expect(describeState(feed, 0).text).toBe("live");
    const { phase, tracks } = feed;
    expect(describeState({ phase, tracks, away: new Set([1]) }, 0).text).toBe("waiting for the agent, which is away");
  });

  test("scrolls back to line 0 while it never holds more than its window", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(30_000));
    const feed = open(service, [1]);
    await until(() => expect(feed.rows.length).toBeGreaterThan(0));
    feed.pause();
    while (feed.hasOlder) {
      await feed.loadOlder();
      expect(feed.rows.length).toBeLessThanOrEqual(MAX_ROWS);
    }
    expect(sequences(feed)).toEqual(dense(0, MAX_ROWS));
    expect(feed.hasNewer).toBe(true);
    await feed.loadNewer();
    expect(sequences(feed)).toEqual(dense(1_000, MAX_ROWS + 1_000));
    await feed.toEnd();
    await until(() => expect(sequences(feed).at(-1)).toBe(29_999));
    expect(feed.following).toBe(true);
    expect(feed.hasNewer).toBe(false);
  });

  test("holds few rows while it follows, and all that a reader who stops scrolls back to", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(1_000));
    const feed = open(service, [1]);
    await until(() => expect(feed.phase.kind).toBe("live"));
    for (let head = 1_000; head < 9_000; head += 800) {
      service.append(1, numbered(800, head));
      await until(() => expect(sequences(feed).at(-1)).toBe(head + 799));
      expect(feed.rows.length).toBeLessThanOrEqual(FOLLOWED_ROWS);
    }
    expect(sequences(feed)).toEqual(dense(9_000 - FOLLOWED_ROWS, 9_000));
    feed.pause();
    while (feed.hasOlder) await feed.loadOlder();
    expect(sequences(feed)).toEqual(dense(0, 9_000));
  });

  test("keeps what a reader who scrolled up sees, counts new lines, and returns to them", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(100));
    const feed = open(service, [1]);
    await until(() => expect(feed.rows).toHaveLength(100));
    feed.pause();
    service.append(1, numbered(25_000, 100));
    await until(() => expect(feed.newLines).toBe(25_000));
    expect(feed.rows[0]?.sequence).toBe(0);
    await feed.toEnd();
    expect(feed.newLines).toBe(0);
    expect(sequences(feed).at(-1)).toBe(25_099);
    service.append(1, numbered(1, 25_100));
    await until(() => expect(sequences(feed).at(-1)).toBe(25_100));
  });

  test("opens at a linked line with what is around it", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(30_000));
    const feed = open(service, [1], false);
    await until(() => expect(feed.phase.kind).toBe("live"));
    await feed.jumpTo(1, 15_000);
    expect(sequences(feed)).toContain(15_000);
    expect(feed.rows[0]?.sequence).toBe(14_500);
    expect(feed.following).toBe(false);
    service.append(1, numbered(2, 30_000));
    await until(() => expect(feed.newLines).toBe(2));
    expect(sequences(feed)).toEqual(dense(14_500, 16_000));
  });

  test("knows when its first line was captured, wherever the window stands", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(30_000));
    const feed = open(service, [1]);
    await until(() => expect(feed.isOpen).toBe(true));
    expect(await feed.startUs()).toBe(1_000);
  });

  test("says so when a linked line does not exist", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(10));
    const feed = open(service, [1], false);
    await feed.jumpTo(1, 500);
    expect(feed.problem).toBe("Line s500 does not exist yet. The stream has 10 lines.");
    expect(sequences(feed)).toContain(9);
    // The groups of the stream are known, and the rows around the line are read anew.
    await until(() => expect(feed.structure(1).isSearched).toBe(true));
    await until(() => expect(feed.isLoading).toBe(false));
    expect(feed.problem).toBe("Line s500 does not exist yet. The stream has 10 lines.");
    expect(sequences(feed)).toContain(9);
  });

  test("resumes after a break with the cursor and the exact position, without gap or repeat", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(10));
    const feed = open(service, [1]);
    await until(() => expect(feed.phase.kind).toBe("live"));
    service.breakCalls(Code.Unavailable, "the relay is stopping");
    await until(() => expect(feed.phase.kind).toBe("reconnecting"));
    expect(describeState(feed, Date.now()).text).toBe("the relay stopped; reconnecting in 1 s");
    service.append(1, numbered(5, 10));
    feed.retryNow();
    await until(() => expect(sequences(feed)).toEqual(dense(0, 15)));
    expect(service.tails[1]?.start.case).toBe("cursor");
    expect(service.tails[1]?.positions.map((each) => each.nextSequence)).toEqual([10n]);
  });

  test("goes on by cursor when the connection breaks before the first line came", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(10));
    service.hangUps = 1;
    const feed = open(service, [1]);
    await until(() => expect(feed.phase.kind).toBe("reconnecting"));
    expect(feed.rows).toHaveLength(0);
    service.append(1, numbered(5, 10));
    feed.retryNow();
    await until(() => expect(feed.phase.kind).toBe("live"));
    expect(service.tails[1]?.start.case).toBe("cursor");
    expect(sequences(feed)).toEqual(dense(0, 15));
  });

  test("joins partial lines into one row, also across blocks and across a page's edge", async () => {
    const service = new FakeLogService();
    service.add(1, [{ text: "before" }, { text: "10 %", partial: true }]);
    const feed = open(service, [1]);
    await until(() => expect(feed.rows).toHaveLength(2));
    service.append(1, [{ text: "\r50 %", partial: true }, { text: "\r99 %" }, { text: "after" }]);
    await until(() => expect(texts(feed)).toEqual(["before", "99 %", "after"]));
    expect(sequences(feed)).toEqual([0, 1, 4]);
    await feed.jumpTo(1, 3);
    expect(sequences(feed)).toEqual([0, 1, 4]);
  });

  test("tells how a run ended, and gives its connection back", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(3));
    service.end(1, create(StreamEndSchema, { reason: EndReason.EXITED, exitCode: 101 }));
    const feed = open(service, [1]);
    await until(() => expect(feed.phase.kind).toBe("ended"));
    expect(describeState(feed, 0)).toEqual({ text: "ended with exit 101", tone: "failed" });
    expect(feed.rows).toHaveLength(3);
  });

  test("says that there is no such stream and does not ask again", async () => {
    const service = new FakeLogService();
    const feed = open(service, [9]);
    await until(() => expect(feed.phase).toEqual({ kind: "failed", reason: "There is no stream 9" }));
    expect(service.tails).toHaveLength(0);
  });
});

describe("several streams", () => {
  test("are merged by time from the store and follow live", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(3_000, 0, 10, "a"));
    service.add(2, numbered(300, 0, 100, "b"));
    const feed = open(service, [1, 2]);
    await until(() => expect(feed.rows.length).toBeGreaterThanOrEqual(1_000));
    feed.pause();
    while (feed.hasOlder) await feed.loadOlder();
    expect(feed.rows).toHaveLength(3_300);
    const times = feed.rows.map((row) => (row.kind === "gap" ? 0 : row.timeUs));
    expect(times).toEqual([...times].sort((a, b) => a - b));
    service.append(2, numbered(1, 300, 100, "b"));
    await until(() => expect(texts(feed).at(-1)).toBe("b 300"));
  });

  test("jump together to one time", async () => {
    const service = new FakeLogService();
    service.add(1, numbered(9_000, 0, 10, "a"));
    service.add(2, numbered(900, 0, 100, "b"));
    const feed = open(service, [1, 2], false);
    await feed.jumpTo(1, 4_000);
    const at = feed.rows.findIndex((row) => row.streamId === 1 && row.sequence === 4_000);
    expect(texts(feed).slice(at - 1, at + 3)).toContain("b 400");
    const times = feed.rows.map((row) => (row.kind === "gap" ? 0 : row.timeUs));
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });
});
