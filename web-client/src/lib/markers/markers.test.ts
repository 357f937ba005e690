import { readFileSync } from "node:fs";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Folds } from "./folds";
import { Outline, type Group } from "./outline";
import { CANDIDATES, MarkerParser } from "./parser";
import { severityOf } from "./severity";

/** The outline of a text whose lines are a second apart. */
function outlineOf(text: string, onlyCandidates = false): Outline {
  const parser = new MarkerParser();
  const outline = new Outline();
  const candidate = new RegExp(CANDIDATES);
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  for (const [sequence, line] of lines.entries()) {
    if (onlyCandidates && !candidate.test(line)) continue;
    outline.add(sequence, sequence * 1_000, parser.read(line, sequence));
  }
  outline.finish(lines.length, lines.length * 1_000);
  return outline;
}

function drawn(outline: Outline): string {
  const lines = outline.groups.map((group) => {
    const facts = [`${group.durationMs} ms`, group.isClosed ? "" : "never closed", outline.isCollapsed(group) ? "collapsed" : "open"];
    const errors = outline.errorsWithin(group.start, group.end ?? Infinity);
    if (errors > 0) facts.push(`${errors} errors`);
    return `${"  ".repeat(group.depth)}s${group.start}-s${(group.end ?? NaN) - 1} ${group.title} (${facts.filter(Boolean).join(", ")})`;
  });
  for (const note of outline.notes) {
    const place = note.file === undefined ? "" : ` at ${[note.file, note.line, note.column].filter((part) => part !== undefined).join(":")}`;
    lines.push(`s${note.sequence} ${note.severity}${place}: ${note.message}`);
  }
  if (outline.progress) lines.push(`progress ${outline.progress.fraction ?? "?"} ${outline.progress.text}`);
  return `${lines.join("\n")}\n`;
}

const named = (outline: Outline, title: string): Group => {
  const group = outline.groups.find((each) => each.title.includes(title));
  if (!group) throw new Error(`no group ${title}`);
  return group;
};

const LOGS = ["github", "azure", "gitlab", "buildkite", "teamcity", "travis", "buildkit", "not-buildkite"];

describe("the markers of every CI", () => {
  test.each(LOGS)("%s: groups, annotations and progress", async (name) => {
    const text = readFileSync(new URL(`../../../testdata/markers/${name}.log`, import.meta.url), "utf8");
    const outline = outlineOf(text);
    await expect(drawn(outline)).toMatchFileSnapshot(`../../../testdata/markers/${name}.log.outline`);
    expect(drawn(outlineOf(text, true)), "the lines that a search selects say the same").toBe(drawn(outline));
  });

  test.each(["cargo-build-failed.ansi.log", "cpython-build-1.log", "cpython-build-2.log", "pip-progress.ansi.log"])("%s has no groups", (name) => {
    const text = readFileSync(new URL(`../../../testdata/${name}`, import.meta.url), "utf8");
    expect(outlineOf(text).groups).toEqual([]);
  });
});

describe("the tree", () => {
  test("keeps the line that ends one section and begins the next out of the section that it ends", () => {
    const outline = outlineOf("section_start:1:a\r\x1b[0KA\nx\nsection_end:2:a\r\x1b[0Ksection_start:2:b\r\x1b[0KB\ny\nsection_end:3:b\r\x1b[0K");
    expect(outline.groups.map(({ start, end }) => [start, end])).toEqual([[0, 2], [2, 5]]);
  });

  test("lets interleaved flows nest on their own, and finds errors of either by line", () => {
    const text = readFileSync(new URL("../../../testdata/markers/teamcity.log", import.meta.url), "utf8");
    const outline = outlineOf(text);
    expect([named(outline, "Compile").depth, named(outline, "Lint").depth]).toEqual([0, 1]);
    expect(outline.errorsWithin(named(outline, "Lint").start, named(outline, "Lint").end ?? 0)).toBe(1);
  });

  test("finds the groups around a line, also far below their headers and after groups within", () => {
    const inner = Array.from({ length: 100 }, (_, at) => `::group::${at}\nx\n::endgroup::`).join("\n");
    const outline = outlineOf(`::group::outer\n${inner}\nlast\n::endgroup::\nafter`);
    expect(outline.around(301).map((group) => group.title)).toEqual(["outer"]);
    expect(outline.around(299).map((group) => group.title)).toEqual(["outer", "99"]);
    expect(outline.around(303)).toEqual([]);
  });

  test("ignores an end without a beginning", () => {
    expect(outlineOf("::endgroup::\nsection_end:1:a\r\x1b[0K\n#4 DONE 1s").groups).toEqual([]);
  });
});

describe("folding", () => {
  test("a group that holds an error is never closed by itself, whatever its marker asks for", () => {
    const outline = outlineOf("::group::a\nx\n::error::boom\n::endgroup::\n::group::b\nx\n::endgroup::");
    expect(outline.groups.map((group) => outline.isCollapsed(group))).toEqual([false, true]);
    const plain = outlineOf("::group::a\nx\nx\n::endgroup::");
    expect(plain.isCollapsed(named(plain, "a"))).toBe(true);
    plain.addErrorLine(2);
    expect(plain.isCollapsed(named(plain, "a")), "a line that looks like an error counts").toBe(false);
  });

  test("closing all leaves open what holds an error", () => {
    const outline = outlineOf("::group::a\nx\n::error::boom\n::endgroup::\n::group::b\nx\n::endgroup::");
    const folds = new Folds(outline);
    folds.setAll(true);
    expect(outline.groups.map((group) => folds.isFolded(group))).toEqual([false, true]);
    folds.setAll(false);
    expect(folds.ranges(0)).toEqual([]);
  });

  test("a group that no marker ended stays open: it may hold the rest of the log", () => {
    const outline = outlineOf("::group::a\nx\nx");
    expect(outline.isCollapsed(named(outline, "a"))).toBe(false);
  });

  test("hidden lines are disjoint, and a line in them can be revealed", () => {
    const outline = outlineOf("::group::a\n::group::b\nx\n::endgroup::\n::endgroup::\n::group::c\ny\n::endgroup::");
    const folds = new Folds(outline);
    expect(folds.ranges(0).map(({ from, to }) => [from, to])).toEqual([[1, 5], [6, 8]]);
    expect(folds.reveal(2, 0)).toBe(true);
    expect(folds.ranges(0).map(({ from, to }) => [from, to])).toEqual([[6, 8]]);
    expect(folds.reveal(0, 0)).toBe(false);
    expect(folds.ranges(6), "a group whose header is not stored any more hides nothing").toEqual([]);
  });

  test("whatever the log says: ranges are in order, apart, inside the log, and below a header that is in view", () => {
    fc.assert(
      fc.property(fc.array(markerLine(), { maxLength: 60 }), fc.nat(9), (lines, first) => {
        const outline = outlineOf(`${lines.join("\n")}\n`);
        const folds = new Folds(outline);
        for (const group of outline.groups) if (group.start % 3 !== 0) folds.set(group, true);
        let before = 0;
        for (const { from, to } of folds.ranges(first)) {
          expect(from).toBeGreaterThan(before);
          expect(to).toBeGreaterThan(from);
          expect(to).toBeLessThanOrEqual(lines.length);
          expect(from - 1).toBeGreaterThanOrEqual(first);
          expect(folds.at(from - 1, first)).toBeNull();
          expect(folds.at(from, first)?.to).toBe(to);
          before = to;
        }
        for (let sequence = first; sequence < lines.length; sequence += 1) {
          folds.reveal(sequence, first);
          expect(folds.at(sequence, first)).toBeNull();
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("hostile text", () => {
  test("never breaks the parser, and titles and messages are plain text of bounded length", () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(markerLine(), fc.string({ unit: "binary", maxLength: 60 })), { maxLength: 30 }), (lines) => {
        const outline = outlineOf(lines.map((line) => line.replaceAll("\n", "")).join("\n"));
        for (const group of outline.groups) {
          expect(group.title).not.toMatch(/[\x00-\x08\x0a-\x1f\x7f-\x9f]/);
          expect(group.title.length).toBeLessThan(1_002);
          expect(group.end).toBeGreaterThan(group.start);
          expect(group.parent === null || group.parent.start <= group.start).toBe(true);
        }
        for (const note of outline.notes) expect(note.message).not.toMatch(/[\x00-\x08\x0a-\x1f\x7f-\x9f]/);
      }),
      { numRuns: 1_000 },
    );
  });

  test("takes time in proportion to the text", () => {
    const parser = new MarkerParser();
    const candidate = new RegExp(CANDIDATES);
    for (const line of [`::error ${"a=b,".repeat(200_000)}`, `##teamcity[message ${"a='".repeat(100_000)}`, `${" ".repeat(500_000)}::`, "section_start:1:a[".repeat(50_000), `::${":".repeat(500_000)}`, `##teamcity[x ${" ".repeat(300_000)}`]) {
      parser.read(line, 0);
      candidate.test(line);
      severityOf(line);
    }
  });
});

describe("plain lines", () => {
  test.each([
    ["error[E0425]: cannot find value", "error"],
    ["src/mill.c:3:4: error: expected ';'", "error"],
    ["src/mill.c:3:4: fatal error: wheel.h: No such file", "error"],
    ["npm ERR! code ELIFECYCLE", "error"],
    ["make: *** [all] Error 2", "error"],
    ["2026-11-24 10:00:00 ERROR failed to bind", "error"],
    ["[ERROR] BUILD FAILURE", "error"],
    ["java.lang.NullPointerException: x", "error"],
    ["Traceback (most recent call last):", "error"],
    ["thread 'main' panicked at src/main.rs:3:5:", "error"],
    ["warning: unused variable: `x`", "warning"],
    ["mill.c:3:4: warning: unused [-Wunused]", "warning"],
    ["2026-11-24 WARN slow", "warning"],
    ["0 errors, 0 warnings", null],
    ["   Compiling thiserror v2.0.1", null],
    ["gcc -Werror -c error.c", null],
    ["test errors::parse ... ok", null],
    ["no error", null],
  ])("%j", (line, severity) => {
    expect(severityOf(line)).toBe(severity);
  });
});

function markerLine(): fc.Arbitrary<string> {
  const name = fc.constantFrom("a", "b", "c");
  return fc.oneof(
    fc.constantFrom("text", "", "::endgroup::", "##[endgroup]", "^^^ +++", "::stop-commands::t", "::t::", "#3 ...", "#3 DONE 1.0s", "#3 ERROR: x", "::error::x", "##[error]x"),
    name.map((title) => `::group::${title}`),
    name.map((title) => `~~~ ${title}`),
    name.map((title) => `--- ${title}`),
    name.map((title) => `+++ ${title}`),
    name.map((key) => `section_start:1:${key}[collapsed=true]\r\x1b[0KHeader`),
    name.map((key) => `section_end:2:${key}\r\x1b[0K`),
    fc.tuple(name, name).map(([key, next]) => `section_end:2:${key}\r\x1b[0Ksection_start:2:${next}[collapsed=true]\r\x1b[0K`),
    fc.tuple(name, name).map(([key, flow]) => `##teamcity[blockOpened name='${key}' flowId='${flow}']`),
    fc.tuple(name, name).map(([key, flow]) => `##teamcity[blockClosed name='${key}' flowId='${flow}']`),
    name.map((flow) => `##teamcity[flowStarted flowId='${flow}' parent='a']`),
    name.map((flow) => `##teamcity[flowFinished flowId='${flow}']`),
    name.map((key) => `travis_fold:start:${key}\r\x1b[0K`),
    name.map((key) => `travis_fold:end:${key}\r\x1b[0K`),
    fc.constantFrom("#3 [1/2] RUN a", "#4 [2/2] RUN b"),
  );
}
