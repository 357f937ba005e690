import * as fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { Severity } from "../../gen/millstream/v1/log_pb";
import { StreamingHealth } from "../rpc/streaming-health";
import { TailHub } from "../rpc/tail-hub";
import type { TestLine } from "../testing/blocks";
import { FakeLogService } from "../testing/fake-log-service";
import { LogFeed } from "./feed";
import { planNewer, planOlder } from "./plan";
import { parsed } from "./row";
import type { Group } from "./structure";

let feeds: LogFeed[] = [];
afterEach(() => {
  for (const feed of feeds) feed.close();
  feeds = [];
});

function open(service: FakeLogService, ids: number[], follows = true): LogFeed {
  const client = service.client();
  const feed = new LogFeed(client, new TailHub(client, new StreamingHealth(client)), ids, follows, () => undefined);
  feeds.push(feed);
  feed.open();
  return feed;
}

const until = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 5_000, interval: 5 });
const group = (title: string, lines: number, text = "text"): string[] => [`::group::${title}`, ...Array.from({ length: lines }, (_, at) => `${text} ${at}`), "::endgroup::"];
const plain = (count: number): string[] => Array.from({ length: count }, (_, at) => `line ${at}`);
const made = (lines: readonly string[], from = 0): TestLine[] => lines.map((text, at) => ({ text, timeUs: 1_000_000 * (from + at) }));
const texts = (feed: LogFeed): string[] => feed.rows.map((row) => (row.kind === "gap" ? "gap" : parsed(row).text));
const searched = (feed: LogFeed, id = 1): Promise<void> => until(() => expect(feed.structure(id).isSearched).toBe(true));
const groupOf = (feed: LogFeed, title: string): Group => {
  const found = feed.structure(1).outline.groups.find((each) => each.title === title);
  if (!found) throw new Error(`no group ${title}`);
  return found;
};

/** The rows of each stream stand for its lines without gap or repeat. */
function expectDense(feed: LogFeed): void {
  const next = new Map<number, number>();
  for (const row of feed.rows) {
    const expected = next.get(row.streamId);
    if (expected !== undefined) expect(row.sequence).toBe(expected);
    next.set(row.streamId, row.nextSequence);
  }
}

describe("closed groups", () => {
  test("are rows of their headers, also when their lines were never loaded", async () => {
    const service = new FakeLogService();
    service.add(1, made([...plain(10), ...group("huge", 50_000), ...plain(10)]));
    const feed = open(service, [1]);
    await searched(feed);
    await until(() => expect(texts(feed)).toEqual([...plain(10), "::group::huge", ...plain(10)]));
    expectDense(feed);
    expect(feed.rows[10]).toMatchObject({ sequence: 10, nextSequence: 50_012, hidden: { from: 11, to: 50_012 } });
    expect(groupOf(feed, "huge").durationMs).toBe(50_001_000);
    expect(feed.hasOlder).toBe(false);
    expect(service.reads, "the hidden lines were not read").toBeLessThan(8);
  });

  test("open and close where the reader says so", async () => {
    const service = new FakeLogService();
    service.add(1, made([...plain(5), ...group("a", 3), ...plain(5)]));
    const feed = open(service, [1]);
    await searched(feed);
    await until(() => expect(feed.rows).toHaveLength(11));
    await feed.setFolded(1, groupOf(feed, "a"), false);
    expect(texts(feed).slice(4, 11)).toEqual(["line 4", "::group::a", "text 0", "text 1", "text 2", "::endgroup::", "line 0"]);
    expectDense(feed);
    await feed.setFolded(1, groupOf(feed, "a"), true);
    expect(feed.rows).toHaveLength(11);
    await feed.setAllFolded(false, { streamId: 1, sequence: 0 });
    expect(feed.rows).toHaveLength(15);
  });

  test("open for a line that a link points at, and only those that hide it", async () => {
    const service = new FakeLogService();
    service.add(1, made([...group("first", 4), "::group::outer", ...group("inner", 3_000), "::endgroup::", ...plain(3)]));
    const feed = open(service, [1], false);
    await feed.jumpTo(1, 2_000);
    await searched(feed);
    await until(() => expect(feed.rows.some((row) => row.sequence === 2_000)).toBe(true));
    await until(() => expect(feed.isLoading).toBe(false));
    const { folds } = feed.structure(1);
    expect(["first", "outer", "inner"].map((title) => folds.isFolded(groupOf(feed, title)))).toEqual([true, false, false]);
    expectDense(feed);
    await feed.jumpTo(1, 2);
    expect(folds.isFolded(groupOf(feed, "first"))).toBe(false);
    expect(feed.rows.some((row) => row.sequence === 2)).toBe(true);
  });

  test("never hold an error by themselves: not one of a marker, not one that only looks like it", async () => {
    const service = new FakeLogService();
    service.add(1, made([...group("marked", 2), ...group("a", 2, "::error::boom"), ...group("b", 2, "src/a.c:1:2: error: boom"), ...group("good", 2), ...plain(2)]));
    const feed = open(service, [1]);
    await searched(feed);
    await until(() => expect(feed.rows).toHaveLength(1 + 4 + 4 + 1 + 2));
    const { folds, outline } = feed.structure(1);
    expect(["marked", "a", "b", "good"].map((title) => folds.isFolded(groupOf(feed, title)))).toEqual([true, false, false, true]);
    const { start, end } = groupOf(feed, "b");
    expect(outline.errorsWithin(start, end ?? 0)).toBe(2);
  });

  test("hold an error where the agent says so, and none where it says that there is none", async () => {
    const { ERROR, NONE, WARNING } = Severity;
    const says = (severity: Severity, lines: readonly string[]): TestLine[] => made(lines).map((line) => ({ ...line, severity }));
    const lines = (error: string, expected: string): TestLine[] => [...says(NONE, [`::group::${error}`]), ...says(ERROR, ["disk gone"]), ...says(NONE, ["::endgroup::", `::group::${expected}`, "error: as expected", "::endgroup::"]), ...says(WARNING, ["slow"])];
    const service = new FakeLogService();
    service.add(1, lines("a", "b"));
    const feed = open(service, [1]);
    await searched(feed);
    service.append(1, lines("live a", "live b"));
    await until(() => expect(groupOf(feed, "live b").end).not.toBeNull());
    const errors = ["a", "b", "live a", "live b"].map((title) => {
      const { start, end } = groupOf(feed, title);
      return feed.structure(1).outline.errorsWithin(start, end ?? 0);
    });
    expect(errors).toEqual([1, 0, 1, 0]);
    expect(feed.structure(1).folds.isFolded(groupOf(feed, "b"))).toBe(true);
    expect(feed.structure(1).folds.isFolded(groupOf(feed, "a"))).toBe(false);
  });

  test("do not close under the reader's eyes when they end live", async () => {
    const service = new FakeLogService();
    service.add(1, made(plain(3)));
    const feed = open(service, [1]);
    await searched(feed);
    service.append(1, made(["::group::live", "x"], 3));
    await until(() => expect(feed.structure(1).outline.groups).toHaveLength(1));
    service.append(1, made(["y", "::endgroup::", "after"], 5));
    await until(() => expect(texts(feed)).toEqual([...plain(3), "::group::live", "x", "y", "::endgroup::", "after"]));
    expect(groupOf(feed, "live").end).toBe(7);
    expect(feed.structure(1).folds.isFolded(groupOf(feed, "live"))).toBe(false);
    await feed.setFolded(1, groupOf(feed, "live"), true);
    expect(texts(feed)).toEqual([...plain(3), "::group::live", "after"]);
  });

  test("are those of the lines that arrive where the relay cannot search", async () => {
    const service = new FakeLogService();
    service.canSearch = false;
    service.add(1, made(plain(3)));
    const feed = open(service, [1]);
    await until(() => expect(feed.rows).toHaveLength(3));
    service.append(1, made(group("live", 2), 3));
    await until(() => expect(feed.structure(1).outline.groups.map(({ start, end }) => [start, end])).toEqual([[3, 7]]));
  });

  test("stand beside another stream's rows with their headers", async () => {
    const service = new FakeLogService();
    service.add(1, made([...plain(3), ...group("a", 40), ...plain(3)]));
    service.add(2, made(Array.from({ length: 49 }, (_, at) => `other ${at}`)));
    const feed = open(service, [1, 2]);
    await searched(feed);
    await searched(feed, 2);
    await until(() => expect(feed.rows).toHaveLength(7 + 49));
    expectDense(feed);
    expect(feed.rows.find((row) => row.kind === "line" && row.hidden !== null)).toMatchObject({ streamId: 1, sequence: 3, nextSequence: 45 });
  });
});

describe("places", () => {
  test("are found by time, and said when they are beyond the end", async () => {
    const service = new FakeLogService();
    service.add(1, made(plain(9_000)));
    const feed = open(service, [1]);
    await until(() => expect(feed.rows.length).toBeGreaterThan(0));
    expect(await feed.toTime(4_000_500_000)).toEqual({ streamId: 1, sequence: 4_001 });
    expect(feed.rows.some((row) => row.sequence === 4_001)).toBe(true);
    expect(feed.following).toBe(false);
    expect(await feed.toTime(99_000_000_000)).toEqual({ streamId: 1, sequence: 8_999 });
    expect(feed.problem).toContain("No line was captured at that time or later");
  });

  test("may be hidden: by percentage they do not open a group, and their text can be copied", async () => {
    const service = new FakeLogService();
    service.add(1, made([...plain(10), ...group("huge", 5_000), ...plain(10)]));
    const feed = open(service, [1]);
    await searched(feed);
    await until(() => expect(feed.rows).toHaveLength(21));
    await feed.toFraction(0.5);
    expect(feed.structure(1).folds.isFolded(groupOf(feed, "huge"))).toBe(true);
    expect(await feed.textOf(1, 9, 13)).toBe("line 9\n::group::huge\ntext 0\ntext 1");
  });
});

describe("paging", () => {
  test("covers every line once, in whatever pages, and every hidden range comes with its header", () => {
    const sizes = fc.array(fc.tuple(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 4_000 })), { maxLength: 8 });
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 40 }), fc.boolean(), (pairs, lines, older) => {
        const ranges = [];
        let head = 0;
        for (const [visible, hidden] of pairs) {
          ranges.push({ from: head + visible, to: head + visible + hidden, headerUs: 0 });
          head += visible + hidden;
        }
        head += 5;
        let at = older ? head : 0;
        while (older ? at > 0 : at < head) {
          const plan = older ? planOlder(ranges, 0, at, lines) : planNewer(ranges, at, head, lines);
          expect(older ? plan.to : plan.from).toBe(at);
          expect(plan.to).toBeGreaterThan(plan.from);
          for (const range of plan.hidden) {
            expect(plan.from).toBeLessThanOrEqual(range.from);
            expect(range.to).toBeLessThanOrEqual(plan.to);
            if (older) expect(plan.from).toBeLessThan(range.from);
          }
          let covered = plan.from;
          for (const piece of [...plan.reads, ...plan.hidden].sort((a, b) => a.from - b.from)) {
            expect(piece.from).toBeLessThanOrEqual(covered);
            covered = Math.max(covered, piece.to);
          }
          expect(covered).toBe(plan.to);
          at = older ? plan.from : plan.to;
        }
        expect(at).toBe(older ? 0 : head);
      }),
    );
  });
});
