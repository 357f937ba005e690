import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { create } from "@bufbuild/protobuf";
import { EndReason, StreamSchema, StreamState, type Stream } from "../../gen/millstream/v1/stream_pb";
import type { Line } from "../block/lines";
import { testLines } from "../testing/blocks";
import { align } from "./align";
import { Comparison, isDifference, type ComparedRow, type LineSource } from "./comparison";
import { lastGoodRun } from "./good-run";
import { normalise } from "./normalise";

const log = (name: string): string[] => readFileSync(new URL(`../../../testdata/${name}`, import.meta.url), "utf8").trimEnd().split("\n");

/** Lines in pages of an awkward size. */
function source(texts: readonly string[], page = 333): LineSource {
  let at = 0;
  return {
    next: (): Promise<Line[]> => {
      const lines = texts.slice(at, at + page);
      const from = at;
      at += lines.length;
      return Promise.resolve(lines.length === 0 ? [] : testLines(1, from, lines));
    },
  };
}

async function compare(left: readonly string[], right: readonly string[]): Promise<ComparedRow[]> {
  const comparison = new Comparison(source(left), source(right, 257));
  const rows: ComparedRow[] = [];
  for (let next = await comparison.next(); next !== null; next = await comparison.next()) rows.push(...next);
  return rows;
}

const first = (rows: readonly ComparedRow[]): ComparedRow | undefined => rows.find(isDifference);

describe("what differs by nature", () => {
  test.each([
    ["2026-11-24T09:30:01.123Z started", "2026-11-25 10:00:59,9 +0000 started"],
    ["Nov 24 09:30:01 host app[812]: ready", "Nov  5 23:59:59 host app[9]: ready"],
    ["    Finished `dev` profile in 2m 25s", "    Finished `dev` profile in 14.31s"],
    ["test result: ok. finished in 0.31s", "test result: ok. finished in 12 ms"],
    ["Compiling demo v0.1.0 (/home/builder/demo)", "Compiling demo v0.1.0 (/tmp/run-8f/demo)"],
    ["gcc -c /tmp/a1b2/x/main.c -o /tmp/a1b2/x/main.o", "gcc -c /srv/w/main.c -o /srv/w/main.o"],
    ["at C:\\Users\\ci\\work\\main.rs", "at D:\\b\\17\\main.rs"],
    ["HEAD is now at 6a9f938 Show", "HEAD is now at f260a64 Show"],
    ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"],
    ["job 3e8f2b0c-1d2e-4f5a-9b8c-7d6e5f4a3b2c", "job 00000000-1d2e-4f5a-9b8c-7d6e5f4a3b2d"],
    ["Downloaded 12.5 MB (3.1 MB/s)", "Downloaded 9 kB (155 kB/s)"],
    ["object at 0x7f3a2c", "object at 0x55d1"],
    ["[ 12/345] CXX a.o", "[7/345] CXX a.o"],
    ["listening, pid 4711", "listening, pid 12"],
    ["run 1234567", "run 7654321"],
  ])("%j is %j", (one, other) => expect(normalise(one)).toBe(normalise(other)));

  test.each([
    ["exit code 1", "exit code 2"],
    ["3 passed, 0 failed", "2 passed, 1 failed"],
    ["error: E0308", "error: E0309"],
    ["compiling /a/b/main.rs", "compiling /a/b/lib.rs"],
    ["checking for gcc... yes", "checking for gcc... no"],
    ["Compiling serde v1.0.1", "Compiling serde v1.0.2"],
  ])("%j is not %j", (one, other) => expect(normalise(one)).not.toBe(normalise(other)));

  test("takes no longer than the line is long, whatever is in it", () => {
    for (const evil of ["/a".repeat(50_000), "1:".repeat(50_000), "12 s ".repeat(20_000), "[ ".repeat(50_000), "a".repeat(100_000), "0x".repeat(50_000), "\\a".repeat(50_000), "Nov 1 ".repeat(20_000)]) {
      const began = performance.now();
      normalise(evil);
      expect(performance.now() - began, evil.slice(0, 8)).toBeLessThan(1_000);
    }
  });
});

describe("real builds", () => {
  const cpython = [...log("cpython-build-1.log"), ...log("cpython-build-2.log")];

  test("a build equals itself in another folder, at another time", async () => {
    const again = cpython.map((line) => line.replaceAll("/usr/bin/", "/opt/tools/"));
    expect(first(await compare(cpython, again))).toBeUndefined();
  });

  test("the first line that went wrong is found, jobs that finished in another order are not", async () => {
    const bad = [...cpython];
    [bad[40], bad[45]] = [bad[45] ?? "", bad[40] ?? ""];
    bad[120] = "configure: error: C compiler cannot create executables";
    bad.length = 121;
    const rows = await compare(cpython, bad);
    expect(first(rows)?.right).toEqual({ sequence: 120, text: "configure: error: C compiler cannot create executables" });
    expect(rows.filter(({ kind }) => kind === "moved").length).toBeGreaterThan(0);
  });

  test("cargo: what was built before is no difference, the error is", async () => {
    const failed = log("cargo-build-failed.ansi.log");
    const at = failed.findIndex((line) => line.includes("E0308"));
    const good = [...failed.slice(0, at), "\u001b[1m\u001b[32m    Finished\u001b[0m `dev` profile [unoptimized + debuginfo] target(s) in 8.12s"];
    const row = first(await compare(good, failed));
    expect(row?.right?.text).toContain("error[E0308]: mismatched types");
  });
});

describe("any two runs", () => {
  const line = fc.constantFrom("a", "b", "c", "d", "e", "make", "test ok", "x1", "x2");
  const run = fc.array(line, { maxLength: 80 });

  test("every line of both stands in its order, once, and what is called the same is", () => {
    fc.assert(
      fc.property(run, run, (left, right) => {
        const pairs = align(left, right);
        expect(pairs.flatMap((pair) => pair.left ?? [])).toEqual(left.map((_, at) => at));
        expect(pairs.flatMap((pair) => pair.right ?? [])).toEqual(right.map((_, at) => at));
        for (const pair of pairs) if (pair.kind === "same") expect(left[pair.left ?? -1]).toBe(right[pair.right ?? -1]);
        const movedLeft = pairs.flatMap((pair) => (pair.kind === "moved" && pair.left !== null ? (left[pair.left] ?? []) : []));
        const movedRight = pairs.flatMap((pair) => (pair.kind === "moved" && pair.right !== null ? (right[pair.right] ?? []) : []));
        expect(movedLeft.sort()).toEqual(movedRight.sort());
      }),
    );
  });

  test("also across windows: long runs that differ in one line differ in that line alone", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 8_999 }), async (at) => {
        const good = Array.from({ length: 9_000 }, (_, number) => `step ${(number * 7_919) % 9_973} of module m${number % 83}`);
        const bad = good.with(at, "Segmentation fault");
        const rows = await compare(good, bad);
        expect(rows.filter(isDifference)).toEqual([
          { kind: "changed", left: { sequence: at, text: good[at] }, right: { sequence: at, text: "Segmentation fault" } },
        ]);
      }),
      { numRuns: 8 },
    );
  });

  test("what moved from one window into the next is no difference", async () => {
    const good = Array.from({ length: 6_000 }, (_, number) => `step x${number}y`);
    const bad = [...good];
    const [late] = bad.splice(1_550, 1);
    bad.splice(1_950, 0, late ?? "");
    expect((await compare(good, bad)).filter(isDifference)).toEqual([]);
  });

  test("runs that have nothing in common are read to their ends", async () => {
    const rows = await compare(Array.from({ length: 5_000 }, (_, at) => `left x${at}y`), Array.from({ length: 100 }, (_, at) => `right x${at}y`));
    expect(rows.filter(({ left }) => left !== null)).toHaveLength(5_000);
    expect(rows.filter(({ right }) => right !== null)).toHaveLength(100);
  });
});

describe("the last good run", () => {
  const runOf = (id: number, exitCode: number, startUs: number, host = "a", argv = ["make"]): Stream =>
    create(StreamSchema, {
      streamId: BigInt(id),
      labels: { host, source: "build" },
      state: StreamState.ENDED,
      run: { runId: `${id}`, argv, startUnixUs: BigInt(startUs) },
      end: { reason: EndReason.EXITED, exitCode },
    });

  test("is the newest before that passed, of the same command on the same host if there is one", () => {
    const failed = runOf(9, 2, 900);
    const runs = [runOf(1, 0, 100), runOf(2, 0, 200), runOf(3, 1, 300), runOf(4, 0, 400, "b"), runOf(5, 0, 500, "a", ["make", "docs"]), runOf(10, 0, 1_000), failed];
    expect(lastGoodRun(failed, runs)?.streamId).toBe(2n);
    expect(lastGoodRun(failed, runs.slice(3))?.streamId).toBe(10n);
    expect(lastGoodRun(failed, [failed, runOf(3, 1, 300)])).toBeNull();
  });
});
