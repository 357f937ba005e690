import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { AgentSchema, AgentState, EndReason, StreamSchema, StreamState, type Stream } from "../../gen/millstream/v1/stream_pb";
import { paletteItems } from "../palette/palette";
import { overviewOf, type Wish } from "./overview";
import { Rates } from "./rates";
import { describeStanding, quietMs, standingOf } from "./standing";

const NOW = 1_700_000_000_000;
const us = (ms: number): bigint => BigInt(ms) * 1_000n;

function stream(streamId: number, init: MessageInitShape<typeof StreamSchema> = {}): Stream {
  return create(StreamSchema, {
    streamId: BigInt(streamId),
    state: StreamState.LIVE,
    createdUnixUs: us(NOW - 300_000),
    lastLineUnixUs: us(NOW - 1_000),
    ...init,
    labels: { host: "build-1", source: "cargo", ...init.labels },
  });
}

const run = (startMs: number) => ({ runId: "r", argv: ["cargo", "build"], startUnixUs: us(startMs) });
const exit = (exitCode: number, endMs: number) => ({ reason: EndReason.EXITED, exitCode, endUnixUs: us(endMs) });
const wish: Wish = { grouping: "streams", words: "", standing: null, sort: "state", descending: false };

describe("how a stream stands", () => {
  test("a run is stalled when it says nothing for a minute, a file never is", () => {
    const silent = stream(1, { run: run(NOW - 200_000), lastLineUnixUs: us(NOW - 61_000) });
    expect(standingOf(silent, quietMs(silent, null, NOW))).toBe("stalled");
    expect(describeStanding(silent, quietMs(silent, null, NOW), NOW)).toBe("no output for 1 min 1 s");
    const talking = stream(2, { run: run(NOW - 200_000) });
    expect(describeStanding(talking, quietMs(talking, null, NOW), NOW)).toBe("running for 3 min 20 s");
    const file = stream(3, { lastLineUnixUs: us(NOW - 9_000_000) });
    expect(standingOf(file, quietMs(file, null, NOW))).toBe("live");
  });

  test("a build host whose clock is wrong is believed only until lines are seen to come", () => {
    const wrong = stream(1, { run: run(NOW - 10_000_000), lastLineUnixUs: us(NOW - 10_000_000), createdUnixUs: us(NOW - 10_000_000) });
    expect(standingOf(wrong, quietMs(wrong, null, NOW))).toBe("stalled");
    expect(standingOf(wrong, quietMs(wrong, NOW - 2_000, NOW))).toBe("running");
  });

  test("an end says how", () => {
    const failed = stream(1, { state: StreamState.ENDED, run: run(NOW - 200_000), end: exit(101, NOW - 8_000) });
    expect(standingOf(failed, 0)).toBe("failed");
    expect(describeStanding(failed, 0, NOW)).toBe("exit 101 after 3 min 12 s");
    expect(standingOf(stream(2, { state: StreamState.AWAY }), 0)).toBe("away");
  });
});

describe("rates", () => {
  test("are lines a second by the page's own clock, and fade when nothing comes", () => {
    const rates = new Rates();
    rates.note(1, 1_000, 10_000);
    expect(rates.of(1, 10_000), "what was there before is no rate").toEqual([]);
    rates.note(1, 1_010, 12_100);
    rates.note(1, 1_030, 14_100);
    expect(rates.of(1, 14_100)).toEqual([0, 5, 10]);
    expect(rates.grewMs(1)).toBe(14_100);
    expect(rates.of(1, 14_100 + 120_000)).toEqual([]);
    expect(rates.now(1, 14_100 + 120_000)).toBe(0);
  });
});

describe("the overview", () => {
  const streams = [
    stream(1, { state: StreamState.ENDED, run: run(NOW - 200_000), end: exit(0, NOW - 100_000) }),
    stream(2, { state: StreamState.ENDED, run: run(NOW - 90_000), end: exit(1, NOW - 80_000) }),
    stream(3, { run: run(NOW - 20_000), nextSequence: 500n }),
    stream(4, { labels: { host: "build-2", source: "syslog", path: "/var/log/syslog" }, nextSequence: 9n }),
  ];
  const agents = [
    create(AgentSchema, { agentId: "a", host: "build-1", state: AgentState.CONNECTED, version: "1" }),
    create(AgentSchema, { agentId: "b", host: "build-3", state: AgentState.AWAY, disconnectedUnixUs: us(NOW - 120_000) }),
  ];
  const known = { streams, agents, rates: new Rates() };
  const keys = (changes: Partial<Wish>): string[] => overviewOf(known, { ...wish, ...changes }, NOW).rows.map(({ key }) => key);

  test("puts what runs first, then what failed", () => {
    expect(keys({})).toEqual(["3", "4", "2", "1"]);
    expect(keys({ sort: "lines", descending: true })).toEqual(["3", "4", "2", "1"]);
    expect(keys({ sort: "name", descending: true })).toEqual(["4", "3", "2", "1"]);
  });

  test("filters by words and by state, and counts what the words find", () => {
    expect(keys({ words: "build-1 CARGO" })).toEqual(["3", "2", "1"]);
    expect(keys({ standing: "failed" })).toEqual(["2"]);
    const { counts, total } = overviewOf(known, { ...wish, words: "cargo", standing: "failed" }, NOW);
    expect([total, counts.get("passed"), counts.get("live")]).toEqual([3, 1, undefined]);
  });

  test("shows the last runs of a source, the newest last", () => {
    const [source] = overviewOf(known, { ...wish, grouping: "sources", words: "cargo" }, NOW).rows;
    expect(source?.past.map(({ standing }) => standing)).toEqual(["passed", "failed", "running"]);
    expect([source?.streamIds, source?.detail]).toEqual([[3], "3 runs"]);
  });

  test("lists hosts, also one that is away and has sent nothing", () => {
    const { rows } = overviewOf(known, { ...wish, grouping: "hosts", sort: "name" }, NOW);
    expect(rows.map(({ name, words }) => [name, words])).toEqual([
      ["build-1", "agent connected"],
      ["build-2", "agent away"],
      ["build-3", "agent away for 2 m"],
    ]);
    expect(rows[0]?.detail).toBe("1 of 3 streams open, agent 1");
  });

  test("the palette finds hosts, streams and what can be done, and offers a search of the text", () => {
    const find = (query: string): string[] => 
      // Iterators, as the catalog gives them: those can be gone through once.
      paletteItems(query, streams.values(), agents.values(), (action) => action === "help").map(({ id }) => id);
    expect(find("build-2")).toEqual(["host-build-2", "stream-4", "text"]);
    expect(paletteItems("build-1", streams.values(), agents.values(), () => false)[0]).toMatchObject({ host: "build-1", streams: 3 });
    expect(find("syslog build")).toEqual(["stream-4", "text"]);
    expect(find("sheet")).toEqual(["action-help", "text"]);
    expect(find("overview")).toEqual(["text"]);
    expect(find("")).toEqual(["stream-1", "stream-2", "stream-3", "stream-4", "action-help"]);
  });
});
