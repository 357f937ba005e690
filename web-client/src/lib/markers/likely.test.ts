import { readFileSync, readdirSync } from "node:fs";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { interestingLines } from "./likely";
import { CANDIDATES } from "./parser";
import { ERROR_LINES } from "./severity";

const interesting = new RegExp(`${CANDIDATES}|${ERROR_LINES}`);

function spansOf(lines: readonly string[]): { text: string; spans: { start: number; end: number }[] } {
  let start = 0;
  const spans = lines.map((line) => {
    const span = { start, end: start + line.length };
    start = span.end + 1;
    return span;
  });
  return { text: lines.join("\n"), spans };
}

function expectSame(lines: readonly string[]): void {
  const { text, spans } = spansOf(lines);
  const slow = spans.flatMap(({ start, end }, at) => (interesting.test(text.slice(start, end + 1)) ? [at] : []));
  expect([...interestingLines(text, spans.map(({ end }) => end))]).toEqual(slow);
}

const testdata = new URL("../../../testdata/", import.meta.url);
const logs = [...readdirSync(testdata), ...readdirSync(new URL("markers/", testdata)).map((name) => `markers/${name}`)].filter((name) => name.endsWith(".log"));

describe("the quick look", () => {
  test("finds in real logs what the patterns find line by line", () => {
    expect(logs.length).toBeGreaterThan(8);
    for (const name of logs) expectSame(readFileSync(new URL(name, testdata), "latin1").split("\n"));
  });

  test("finds it in lines that are all but markers, wherever they stand", () => {
    const pieces = fc.constantFrom(
      ..."error: |Error|ERROR|fatal:|FATAL:|panic:|CRITICAL:|FAILED |FAIL:|npm ERR! |npm error x|make[2]: *** |make: *** |Traceback (most recent call last):|E   x|thread 'main' panicked|ValueError:|java.io.IOException:|::group::x|##[error]|##vso[task.|##teamcity[|section_start:1|travis_fold:end:|--- x|+++\tx|~~~ x|^^^ +++|#12 DONE|#1 [2/3]|\u001b[31m|\u001b_bk;t=1\u0007| |x|2024-01-01T00:00:00.0000000Z |ERROR".split("|"),
    );
    const line = fc.array(pieces, { maxLength: 4 }).map((parts) => parts.join(""));
    fc.assert(fc.property(fc.array(fc.oneof(line, fc.string({ unit: "binary", maxLength: 30 }).map((text) => text.replaceAll("\n", " "))), { minLength: 1, maxLength: 30 }), expectSame), { numRuns: 2_000 });
  });
});
