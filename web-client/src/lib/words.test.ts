import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { AgentSchema, AgentState, EndReason, RunSchema, StreamEndSchema, StreamSchema } from "../gen/millstream/v1/stream_pb";
import { groupStreams, shortNames } from "./catalog/groups";
import { choose, formatHash, formatPath, isWithin, parseLocation, parseSequence } from "./location";
import { Backoff } from "./rpc/backoff";
import { describeFailure, SilenceError } from "./rpc/failure";
import { watched } from "./rpc/watchdog";
import { selectorFor, tailCommand } from "./selector";
import { formatAgo, formatBytes, formatClock, formatTime, formatSpan } from "./text/format";
import { describeEnd, outcomeOfEnd } from "./text/outcome";

describe("the address", () => {
  test.each([
    ["/", "", { panes: [], target: null }],
    ["/streams/42", "", { panes: [[42]], target: null }],
    ["/streams/42", "#s120", { panes: [[42]], target: { streamId: 42, sequence: 120 } }],
    ["/streams/42", "#s120-s145", { panes: [[42]], target: { streamId: 42, sequence: 120, last: 145 } }],
    ["/streams/42", "#s145-s120", { panes: [[42]], target: { streamId: 42, sequence: 120, last: 145 } }],
    ["/streams/42,43", "#43:s7-9", { panes: [[42, 43]], target: { streamId: 43, sequence: 7, last: 9 } }],
    ["/streams/42", "#s7-s7", { panes: [[42]], target: { streamId: 42, sequence: 7 } }],
    ["/streams/42,43", "#43:s7", { panes: [[42, 43]], target: { streamId: 43, sequence: 7 } }],
    ["/streams/42,43/57", "#57:s7", { panes: [[42, 43], [57]], target: { streamId: 57, sequence: 7 } }],
    ["/streams/42/42", "#s7", { panes: [[42], [42]], target: { streamId: 42, sequence: 7 } }],
    ["/streams/42", "#43:s7", { panes: [[42]], target: null }],
    ["/streams/", "", { panes: [], target: null }],
    ["/streams/0,x,42", "", { panes: [], target: null }],
    ["/streams/0,42,42//", "", { panes: [[42]], target: null }],
    ["/somewhere", "#s1", { panes: [], target: null }],
  ])("%s%s", (path, hash, view) => {
    const parsed = parseLocation(path, hash);
    expect(parsed).toEqual({ ...view, comparison: null });
    expect(parseLocation(formatPath(parsed), formatHash(parsed))).toEqual(parsed);
  });

  test("of lines that are chosen one after the other", () => {
    const one = choose(null, 42, 9, false);
    expect(one).toEqual({ streamId: 42, sequence: 9 });
    expect(choose(one, 42, 9, false), "chosen again: let go").toBeNull();
    expect(choose(one, 42, 5, true)).toEqual({ streamId: 42, sequence: 5, last: 9 });
    expect(choose(choose(one, 42, 5, true), 42, 20, true)).toEqual({ streamId: 42, sequence: 5, last: 20 });
    expect(choose(one, 43, 5, true), "of another stream: alone").toEqual({ streamId: 43, sequence: 5 });
    const row = (sequence: number, nextSequence: number) => ({ streamId: 42, sequence, nextSequence });
    expect([row(4, 5), row(4, 6), row(9, 10), row(10, 11)].map((each) => isWithin({ streamId: 42, sequence: 5, last: 9 }, each))).toEqual([false, true, true, false]);
  });

  test("of a comparison", () => {
    const view = parseLocation("/compare/41/57", "");
    expect(view).toEqual({ panes: [], comparison: { good: 41, failed: 57 }, target: null });
    expect(formatPath(view)).toBe("/compare/41/57");
    expect(parseLocation("/compare/0/57", "")).toEqual({ panes: [], comparison: null, target: null });
  });

  test("has no more panes and streams than can be shown", () => {
    const many = Array.from({ length: 100 }, (_, at) => at + 1);
    expect(parseLocation(`/streams/${many.join("/")}`, "").panes).toHaveLength(6);
    expect(parseLocation(`/streams/${many.join(",")}`, "").panes[0]).toHaveLength(32);
  });

  test.each([["120", 120], ["s120", 120], ["#s120", 120], ["1,200,300", 1_200_300], ["0", 0], ["x", null], ["", null], ["-1", null], ["99999999999999999", null]])(
    "%j is line %j",
    (text, sequence) => expect(parseSequence(text)).toBe(sequence),
  );
});

describe("words", () => {
  test.each([[12, "12 ms"], [3_250, "3.3 s"], [59_000, "59 s"], [192_000, "3 min 12 s"], [7_260_000, "2 h 1 min"], [200_000_000, "2 d 7 h"]])(
    "%d ms is %j",
    (span, words) => expect(formatSpan(span)).toBe(words),
  );

  test("times are counted from the start, or from the line before", () => {
    const origin = { startUs: 1_000_000, beforeUs: 61_345_000 };
    expect(formatTime(61_345_000, "start", origin)).toBe("+1:00.345");
    expect(formatTime(3_724_012_000, "start", origin)).toBe("+1:02:03.012");
    expect(formatTime(61_357_000, "delta", origin)).toBe("+0.012");
    expect(formatTime(61_225_000, "delta", origin)).toBe("−0.120");
    expect(formatTime(61_225_000, "delta", { ...origin, beforeUs: null })).toBe("");
  });

  test("times are to the millisecond, in UTC when asked", () => {
    expect(formatClock(Date.UTC(2026, 10, 24, 1, 2, 3, 45) * 1_000, "utc")).toBe("01:02:03.045");
    const origin = { startUs: 1_000_000, beforeUs: 61_345_000 };
    expect(formatTime(0, "off", origin)).toBe("");
    expect(formatTime(0, "utc", origin)).toBe("00:00:00.000");
    expect([0, 1_000, 70_000, 7_200_000].map((age) => formatAgo(1e12 * 1e3, 1e12 + age))).toEqual(["now", "now", "1 m", "2 h"]);
    expect(formatBytes(1_536)).toBe("1.5 KiB");
  });

  test("a run's end says how and after how long", () => {
    const run = create(RunSchema, { startUnixUs: 1_000_000n });
    const end = (init: object) => create(StreamEndSchema, { reason: EndReason.EXITED, endUnixUs: 193_000_000n, ...init });
    expect(describeEnd(end({ exitCode: 101 }), run)).toBe("ended with exit 101 after 3 min 12 s");
    expect(describeEnd(end({ signal: 9 }), run)).toBe("ended by SIGKILL after 3 min 12 s");
    expect(outcomeOfEnd(end({ exitCode: 0 }))).toBe("passed");
    expect(outcomeOfEnd(end({ signal: 9 }))).toBe("failed");
    expect(outcomeOfEnd(end({ reason: EndReason.END_OF_INPUT }))).toBe("ended");
  });

  test("failures say what to expect", () => {
    expect(describeFailure(new ConnectError("There is no stream 9.", Code.NotFound))).toEqual({ fatal: true, otherStore: false, message: "There is no stream 9" });
    expect(describeFailure(new TypeError("Failed to fetch")).message).toBe("the relay cannot be reached");
    const busy = new ConnectError("2 subscriptions are open", Code.ResourceExhausted, { "retry-after": "5" });
    expect(describeFailure(busy)).toEqual({ fatal: false, otherStore: false, message: "2 subscriptions are open", retryAfterMs: 5_000 });
    expect(describeFailure(new ConnectError("x", Code.ResourceExhausted, { "retry-after": "soon" })).retryAfterMs).toBeUndefined();
    expect(describeFailure(new ConnectError("the cursor is of another store", Code.FailedPrecondition)).otherStore).toBe(true);
  });
});

describe("selectors", () => {
  test.each([
    [{ host: "build-1", source: "cargo" }, "host=build-1,source=cargo"],
    [{ path: "/var/log/a b,c.log" }, 'path="/var/log/a b,c.log"'],
    [{ path: "/logs/*.log" }, null],
  ])("%j", (labels, selector) => expect(selectorFor(new Map(Object.entries(labels)))).toBe(selector));

  test("are quoted for the shell", () => {
    expect(tailCommand("host=build-1,source=cargo")).toBe("millstream tail host=build-1,source=cargo");
    expect(tailCommand(`path="it's"`)).toBe(`millstream tail 'path="it'\\''s"'`);
  });
});

describe("reconnecting", () => {
  test("waits grow, stay capped, and begin anew after success", () => {
    const backoff = new Backoff(() => 1);
    const waits = Array.from({ length: 12 }, () => backoff.next());
    expect(waits.slice(0, 4)).toEqual([500, 1_000, 2_000, 4_000]);
    expect(Math.max(...waits)).toBe(15_000);
    backoff.reset();
    expect(backoff.next()).toBe(500);
  });

  test("a stream that falls silent is dead", async () => {
    async function* silent(signal: AbortSignal) {
      yield 1;
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("aborted"))));
    }
    const seen: number[] = [];
    const run = async (): Promise<void> => {
      for await (const value of watched(silent, new AbortController().signal, { firstMs: 20, nextMs: 20 })) seen.push(value);
    };
    await expect(run()).rejects.toBeInstanceOf(SilenceError);
    expect(seen).toEqual([1]);
  });
});

describe("the side bar", () => {
  const stream = (id: number, host: string, source: string) =>
    create(StreamSchema, { streamId: BigInt(id), agentId: host, labels: { host, source } });

  test("orders hosts and sources by name and streams newest first", () => {
    const groups = groupStreams([stream(1, "b10", "x"), stream(2, "b2", "x"), stream(3, "b2", "x")], [], "");
    expect(groups.map((group) => group.host)).toEqual(["b2", "b10"]);
    expect(groups[0]?.sources[0]?.streams.map((each) => each.streamId)).toEqual([3n, 2n]);
  });

  test("filters by every word, over all labels", () => {
    const streams = [stream(1, "build-1", "cargo"), stream(2, "build-1", "npm"), stream(3, "build-2", "cargo")];
    expect(groupStreams(streams, [], "BUILD-1 car").flatMap((group) => group.sources.map((each) => each.key))).toEqual(["build-1/cargo"]);
  });

  test("shows a connected host that has no streams yet", () => {
    const agent = create(AgentSchema, { agentId: "a", host: "new", state: AgentState.CONNECTED });
    expect(groupStreams([], [agent], "").map((group) => [group.host, group.isConnected])).toEqual([["new", true]]);
  });

  test("names streams shown together by what tells them apart", () => {
    const file = (id: number, host: string, path: string) =>
      create(StreamSchema, { streamId: BigInt(id), labels: { host, source: "file", path }, instance: path });
    expect(shortNames([stream(1, "b1", "cargo"), stream(2, "b2", "cargo")])).toEqual(["b1", "b2"]);
    expect(shortNames([stream(1, "b1", "cargo"), stream(2, "b1", "npm")])).toEqual(["cargo", "npm"]);
    expect(shortNames([stream(1, "b1", "cargo"), stream(2, "b1", "npm"), stream(3, "b2", "npm")])).toEqual(["b1 cargo", "b1 npm", "b2 npm"]);
    expect(shortNames([file(1, "b1", "/a/x.log"), file(2, "b1", "/a/y.log")])).toEqual(["file x.log", "file y.log"]);
    expect(shortNames([])).toEqual([]);
  });
});
