import { create } from "@bufbuild/protobuf";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HistogramResponseSchema, LogService, SearchOrder, Severity, type SearchRequest } from "../../gen/millstream/v1/log_pb";
import type { LogClient } from "../rpc/client";
import { blockOf } from "../testing/blocks";
import { Find, findSeverity } from "./find";
import { finderOf } from "./highlight";
import { barsPath, marksPath, sequenceMap, timeline } from "./histogram";
import { formatFind, NO_QUERY, parseFind } from "./query";

/** A relay whose streams hold these texts; line n of stream s was captured at n × 1,000 + s µs. */
class FakeSearch {
  readonly requests: SearchRequest[] = [];
  readonly streams = new Map<number, string[]>();
  /** Set: calls end with it. */
  failure: string | null = null;

  heads(): Map<number, number> {
    return new Map([...this.streams].map(([id, lines]) => [id, lines.length]));
  }

  client(): LogClient {
    const { requests, streams } = this;
    const failure = (): string | null => this.failure;
    const transport = createRouterTransport(({ service }) => {
      service(LogService, {
        async *search(request) {
          requests.push(request);
          const problem = failure();
          if (problem !== null) throw new Error(problem);
          const wanted = request.filter;
          const isHit = (text: string): boolean => {
            if (wanted?.severities.includes(Severity.ERROR)) return text.startsWith("error");
            return text.includes(wanted?.substring ?? "");
          };
          let sent = 0;
          let total = 0;
          for (const streamId of request.streamIds) {
            const lines = streams.get(Number(streamId)) ?? [];
            const to = Number(request.toSequence) || lines.length;
            const range = lines.map((text, sequence) => ({ text, sequence })).slice(Number(request.fromSequence), to);
            const timed = range.filter(({ sequence }) => {
              const timeUs = sequence * 1_000 + Number(streamId);
              return timeUs >= Number(request.sinceUnixUs) && (request.untilUnixUs === 0n || timeUs < Number(request.untilUnixUs));
            });
            const hits = timed.filter(({ text }) => isHit(text));
            if (request.order === SearchOrder.NEWEST_FIRST) hits.reverse();
            total += hits.length;
            for (const { text, sequence } of hits.slice(0, request.maxHits - sent)) {
              sent += 1;
              const block = blockOf(sequence, [{ text, timeUs: sequence * 1_000 + Number(streamId) }]);
              yield { message: { case: "hits" as const, value: { streamId, block } } };
            }
          }
          const hits = BigInt(request.countAll ? total : sent);
          yield { message: { case: "progress" as const, value: { hits, done: true, searchedTextBytes: 10n, totalTextBytes: 10n } } };
        },
        histogram: () => create(HistogramResponseSchema, {
          sinceUnixUs: 5n,
          bucketUs: 10n,
          firstSequence: 3n,
          bucketLines: 7n,
          buckets: [{ lines: 4n }, { lines: 2n, warnings: 1n, errors: 1n }, {}],
        }),
      });
    });
    return createClient(LogService, transport);
  }
}

const signal = new AbortController().signal;

async function found(fake: FakeSearch, text: string): Promise<Find> {
  const find = new Find(fake.client(), [...fake.streams.keys()], () => undefined);
  await find.search({ ...NO_QUERY, text }, fake.heads());
  return find;
}

const places = (find: Find): string[] => find.hits.map(({ streamId, sequence }) => `${streamId}:${sequence}`);

describe("a search of whole streams", () => {
  it("holds hits of all streams in the order of the view, and steps through them", async () => {
    const fake = new FakeSearch();
    fake.streams.set(1, ["hit", "x", "hit", "x"]);
    fake.streams.set(2, ["x", "hit", "hit"]);
    const find = await found(fake, "hit");
    expect(places(find)).toEqual(["1:0", "2:1", "1:2", "2:2"]);
    expect(find.total).toBe(4);
    expect(find.isDone).toBe(true);
    const at = { streamId: 2, sequence: 1, timeUs: 1_002 };
    expect(find.neighbour(at, "next")).toMatchObject({ streamId: 1, sequence: 2 });
    expect(find.neighbour(at, "previous")).toMatchObject({ streamId: 1, sequence: 0 });
    expect(find.neighbour({ streamId: 2, sequence: 2, timeUs: 2_002 }, "next")).toBeNull();
    expect(find.neighbour(null, "previous")).toMatchObject({ streamId: 2, sequence: 2 });
    expect(find.indexOf({ streamId: 1, sequence: 2, timeUs: null })).toBe(2);
  });

  it("finds what comes later once, and only there", async () => {
    const fake = new FakeSearch();
    fake.streams.set(1, ["hit 0", "x"]);
    const find = await found(fake, "hit");
    fake.streams.get(1)?.push("x", "hit 3");
    await find.grow(fake.heads());
    await find.grow(fake.heads());
    expect(places(find)).toEqual(["1:0", "1:3"]);
    expect(find.total).toBe(2);
    expect(fake.requests.length).toBe(2);
    expect(fake.requests[1]?.fromSequence).toBe(2n);
    expect(fake.requests[1]?.toSequence).toBe(4n);
  });

  it("holds no hit twice when lines came between the asking and the search", async () => {
    const fake = new FakeSearch();
    fake.streams.set(1, ["hit 0", "x", "hit 2"]);
    const find = new Find(fake.client(), [1], () => undefined);
    await find.search({ ...NO_QUERY, text: "hit" }, new Map([[1, 1]]));
    fake.streams.get(1)?.push("hit 3");
    await find.grow(fake.heads());
    expect(places(find)).toEqual(["1:0", "1:2", "1:3"]);
    expect(find.total).toBe(3);
  });

  it("forgets the query before, and says why there is nothing", async () => {
    const fake = new FakeSearch();
    fake.streams.set(1, ["a", "b"]);
    const find = new Find(fake.client(), [1], () => undefined);
    const first = find.search({ ...NO_QUERY, text: "a" }, fake.heads());
    await Promise.all([first, find.search({ ...NO_QUERY, text: "b" }, fake.heads())]);
    expect(places(find)).toEqual(["1:1"]);
    fake.failure = "the pattern is not valid";
    await find.search({ ...NO_QUERY, text: "(" }, fake.heads());
    expect(find.problem).toContain(".");
    expect(find.hits).toEqual([]);
    await find.search(NO_QUERY, fake.heads());
    expect(find.problem).toBeNull();
  });

  it("asks the relay for one line to get to the next error of a stream", async () => {
    const fake = new FakeSearch();
    fake.streams.set(1, ["error 0", "x", "error 2", "x", "error 4"]);
    const client = fake.client();
    const at = { streamId: 1, sequence: 2, timeUs: 2_001 };
    expect(await findSeverity(client, [1], at, "next", [Severity.ERROR], signal)).toMatchObject({ sequence: 4 });
    expect(await findSeverity(client, [1], at, "previous", [Severity.ERROR], signal)).toMatchObject({ sequence: 0 });
    expect(await findSeverity(client, [1], { ...at, sequence: 0 }, "previous", [Severity.ERROR], signal)).toBeNull();
    expect(fake.requests.map(({ maxHits }) => maxHits)).toEqual([1, 1, 1]);
  });

  it("gets to the nearest error in time of several streams", async () => {
    const fake = new FakeSearch();
    fake.streams.set(1, ["error 0", "x", "x", "error 3"]);
    fake.streams.set(2, ["x", "x", "error 2"]);
    const client = fake.client();
    const at = { streamId: 1, sequence: 0, timeUs: 1 };
    expect(await findSeverity(client, [1, 2], at, "next", [Severity.ERROR], signal)).toMatchObject({ streamId: 2, sequence: 2 });
    const later = { streamId: 1, sequence: 3, timeUs: 3_001 };
    expect(await findSeverity(client, [1, 2], later, "previous", [Severity.ERROR], signal)).toMatchObject({ streamId: 2, sequence: 2 });
  });
});

describe("hits in a line", () => {
  const parts = (text: string, query: Partial<typeof NO_QUERY>): string[] =>
    finderOf({ ...NO_QUERY, ...query })(text).map(({ from, to }) => text.slice(from, to));

  it("are where the text is, without regard to case unless asked", () => {
    expect(parts("Error: error", { text: "error" })).toEqual(["Error", "error"]);
    expect(parts("Error: error", { text: "error", matchesCase: true })).toEqual(["error"]);
    expect(parts("a.b (c) [d]", { text: "(c) [" })).toEqual(["(c) ["]);
    expect(parts("x", { text: "" })).toEqual([]);
  });

  it("are where a pattern matches, and nowhere when this language does not have it", () => {
    expect(parts("E0425 in 12", { text: "[0-9]+", isRegex: true })).toEqual(["0425", "12"]);
    expect(parts("abc", { text: "(?i)B", isRegex: true, matchesCase: true })).toEqual(["b"]);
    expect(parts("abc", { text: "(?x) a b", isRegex: true })).toEqual([]);
    expect(parts("abc", { text: "(", isRegex: true })).toEqual([]);
    expect(parts("abc", { text: "b*", isRegex: true })).toEqual(["b"]);
  });

  it("cost no more than a moment, whatever pattern a link brings", () => {
    const line = `${"a".repeat(5_000)}!`;
    const start = performance.now();
    for (const text of ["(a+)+$", "(a|a)*$", "((a*)b*)*c", "(a{1,}){5,}$", "a*a*a*a*a*b", "(?:a|aa)+$", ".*.*x"]) {
      finderOf({ text, isRegex: true, matchesCase: true })(line);
    }
    expect(performance.now() - start).toBeLessThan(5_000);
  });

  it("of plain text are exactly that text, for any text", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 6 }), fc.string({ maxLength: 40 }), (needle, text) => {
        for (const { from, to } of finderOf({ text: needle, isRegex: false, matchesCase: true })(text)) {
          expect(text.slice(from, to)).toBe(needle);
        }
      }),
    );
  });
});

describe("the address of a search", () => {
  it("comes back as it was", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), fc.boolean(), fc.boolean(), fc.boolean(), (text, isRegex, matchesCase, only) => {
        const address = { query: { text, isRegex, matchesCase }, only };
        expect(parseFind(formatFind(address))).toEqual(address);
      }),
    );
    expect(formatFind({ query: NO_QUERY, only: true })).toBe("");
    expect(parseFind("")).toEqual({ query: NO_QUERY, only: false });
  });
});

describe("a histogram", () => {
  it("is drawn as bars that stand on each other and marks where something is", async () => {
    const client = new FakeSearch().client();
    const times = await timeline(client, [1], null, 3, signal);
    expect(times).toMatchObject({ sinceUs: 5, bucketUs: 10, isPartial: false });
    expect(times.buckets[1]).toEqual({ lines: 2, warnings: 1, errors: 1 });
    expect(barsPath(times.buckets, ({ lines }) => lines, () => 0, 4)).toBe("M0.1 1V0h.8V1zM1.1 1V0.5h.8V1z");
    const errors = barsPath(times.buckets, ({ errors }) => errors, ({ warnings }) => warnings, 4);
    expect(errors).toBe("M1.1 0.75V0.5h.8V0.75z");
    const map = await sequenceMap(client, 1, 3, signal);
    expect(map).toMatchObject({ first: 3, bucketLines: 7 });
    expect(marksPath(map, ({ errors }) => errors)).toBe("M0 1h1v1h-1z");
  });
});
