import { readFileSync, readdirSync } from "node:fs";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { testLines, type TestLine } from "../testing/blocks";
import { nameOf, shownByRows, shownByTerminal, windowOf, type ShownRow } from "../testing/terminal";
import type { Line } from "../block/lines";
import { parsed } from "./row";
import { RowWindow } from "./window";

const lineList = (log: string): TestLine[] => {
  const pieces = log.split("\n");
  const last = pieces.pop() ?? "";
  return [...pieces.map((text) => ({ text })), ...(last === "" ? [] : [{ text: last, partial: true }])];
};
const linesOfLog = (log: string): Line[] => (lineList(log).length === 0 ? [] : testLines(1, 0, lineList(log)));
const text = (rows: readonly ShownRow[]): string[] => rows.map((row) => row.text);
const show = (log: string): string[] => text(shownByRows(windowOf(linesOfLog(log))));

const number = fc.integer({ min: 0, max: 9 }).map((value) => (value === 0 ? "" : String(value)));
const colour = fc.oneof(
  fc.constantFrom("0", "", "1", "2", "3", "4", "7", "9", "22", "23", "24", "27", "29", "39", "49", "31", "97", "42", "103"),
  fc.integer({ min: 0, max: 255 }).map((index) => `38;5;${index}`),
  fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255)).map((rgb) => `48;2;${rgb.join(";")}`),
);
/** What programs that redraw write, and what overwrites what. */
const piece = fc.oneof(
  { weight: 4, arbitrary: fc.string({ unit: fc.constantFrom(..."abcXYZ 019#=>-"), maxLength: 12 }) },
  { weight: 1, arbitrary: fc.constantFrom("é", "e\u0301", "\t", "…") },
  { weight: 3, arbitrary: fc.constantFrom("\r", "\b", "\x1b[K", "\x1b[2K", "\x1b[1K", "\x1b[J", "\x1b[0K", "\x1b[?25l", "\x1b[?25h", "\x1bM", "\x1b7ab\x1b8", "\x1b[s\x1b[1mx\x1b[u") },
  { weight: 3, arbitrary: fc.tuple(number, fc.constantFrom(..."AFEBCDGXP@")).map(([count, final]) => `\x1b[${count}${final}`) },
  { weight: 2, arbitrary: colour.map((parameters) => `\x1b[${parameters}m`) },
);
const logLine = fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join(""));
const log = fc.array(logLine, { minLength: 1, maxLength: 14 }).map((lines) => `${lines.join("\n")}\n`);

/** Whether the log goes above its own first row, where the terminal has blank rows and we have none. */
const goesAbove = (window: RowWindow): boolean => window.rows.some((row) => row.kind !== "gap" && row.drawn?.isClipped);

describe("rows show what a terminal shows", () => {
  test("whatever is written, redrawn and erased", async () => {
    await fc.assert(
      fc.asyncProperty(log, async (made) => {
        const window = windowOf(linesOfLog(made));
        fc.pre(!goesAbove(window));
        expect(shownByRows(window)).toEqual(await shownByTerminal(made));
      }),
      { numRuns: 400 },
    );
  }, 120_000);

  const recordings = readdirSync(new URL("../../../testdata", import.meta.url)).filter((name) => name.endsWith(".log"));
  test.each(recordings)("%s", async (name) => {
    const log = readFileSync(new URL(`../../../testdata/${name}`, import.meta.url), "utf8");
    const window = windowOf(linesOfLog(log));
    const drawn = window.rows.map((row) => (row.kind === "gap" ? "" : parsed(row).spans.map((span) => `‹${nameOf(span.style)}${span.style.link === null ? "" : ` → ${span.style.link}`}›${span.text}`).join("")));
    await expect(`${drawn.join("\n")}\n`).toMatchFileSnapshot(`../../../testdata/${name}.rows`);
    // A status line at a fixed place of the screen is left out; the terminal of the judge is too narrow for these logs.
    if (!log.includes("\x1b7\x1b[") && !log.split("\n").some((line) => line.length > 4_000)) {
      // The judge underlines links by itself.
      expect(shownByRows(window)).toEqual(await shownByTerminal(log.replace(/\x1b\]8;[^\x07\x1b]*(?:\x07|\x1b\\)/g, ""), 4_000));
    }
  });
});

describe("bars that are drawn again and again", () => {
  test("are the rows that they are on a screen, however many lines they took", () => {
    const frames = Array.from({ length: 500 }, (_, at) => `\x1b[3A\x1b[2Ka ${at}\n\x1b[2Kb ${at}\n\x1b[2Kc ${at}\n`).join("");
    const window = windowOf(linesOfLog(`start\na\nb\nc\n${frames}end\n`));
    expect(text(shownByRows(window))).toEqual(["start", "a 499", "b 499", "c 499", "end"]);
    // Every line is in exactly one row.
    expect(window.rows.map((row) => [row.sequence, row.nextSequence])).toEqual([[0, 1], [1, 2], [2, 3], [3, 1_504], [1_504, 1_505]]);
  });

  test("leave lines above them alone, and take in lines that are written above them", () => {
    expect(show("one\ntwo\n\x1b[1A\x1b[Kwritten above\ntwo\nthree\n")).toEqual(["one", "written above", "two", "three"]);
  });

  test("overwrite both halves of a wide character", () => {
    expect(show("漢字x\rab\n漢字x\ra\n漢字\x1b[2G_\n")).toEqual(["ab字x", "a 字x", " _字"]);
  });

  test("keep what was read when a program clears its screen", () => {
    expect(show("one\ntwo\n\x1b[H\x1b[2J\x1b[3Jthree\n")).toEqual(["one", "two", "three"]);
  });

  test("leave out a status line that a program keeps at a fixed place of the terminal", () => {
    expect(show("Unpacking\n\x1b7\x1b[24;0f\x1b[42mProgress: [ 20%]\x1b[49m\x1b8Setting up\n")).toEqual(["Unpacking", "Setting up"]);
  });

  test("do not mix with another stream's rows between them", () => {
    const window = new RowWindow();
    window.append(testLines(1, 0, ["a", "b"]));
    window.append(testLines(2, 0, ["other"]));
    window.append(testLines(1, 2, ["\x1b[2A\x1b[Ka2", "\x1b[Kb2", "c"]));
    expect(text(shownByRows(window))).toEqual(["a2", "b2", "other", "c"]);
  });

  test("are bounded: a cursor that goes up further than any terminal is high stops there", () => {
    const lines = Array.from({ length: 300 }, (_, at) => String(at));
    const rows = show(`${lines.join("\n")}\n\x1b[999Ax\n`);
    expect(rows[200]).toBe("x00");
    expect(rows).toHaveLength(300);
  });
});

describe("pieces of a line that had not ended", () => {
  const lineOrPiece = fc.record({ text: logLine, partial: fc.boolean() });
  const logOf = (lines: readonly TestLine[]): string => lines.map(({ text, partial }) => `${text as string}${partial ? "" : "\n"}`).join("");

  test("are one row, as on a terminal", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(lineOrPiece, { minLength: 1, maxLength: 14 }), async (lines) => {
        const window = windowOf(testLines(1, 0, lines));
        fc.pre(!goesAbove(window));
        expect(shownByRows(window)).toEqual(await shownByTerminal(logOf(lines)));
      }),
      { numRuns: 400 },
    );
  }, 120_000);

  test("are one row also where there are very many of them, read in whatever pages", async () => {
    for (const [before, after] of [["", ""], ["\r", ""], ["", "\r"]]) {
      const bar = Array.from({ length: 3_000 }, (_, at) => ({ text: `${before}\x1b[2K${at}${after}`, partial: true }));
      const lines: TestLine[] = [{ text: "before" }, ...bar, { text: "\rdone" }, { text: "after" }];
      const shown = await shownByTerminal(logOf(lines), 16_000);
      for (const size of [lines.length, 1, 700]) {
        const window = new RowWindow();
        for (let at = 0; at < lines.length; at += size) window.append(testLines(1, at, lines.slice(at, at + size)));
        expect(window.rows.map((row) => [row.sequence, row.nextSequence])).toEqual([[0, 1], [1, 3_002], [3_002, 3_003]]);
        expect(shownByRows(window)).toEqual(shown);
      }
    }
  }, 120_000);

  test("are one row when the rows below them were let go of and are read again", () => {
    const pieces = Array.from({ length: 100 }, (_, at) => ({ text: `\r${at} %`, partial: true }));
    const window = new RowWindow(3);
    window.append(testLines(1, 10, ["a", ...pieces]));
    // What is older pushes out the newest row but for its place: where it went on is not forgotten.
    window.append(testLines(2, 0, ["other"]));
    window.prepend(testLines(1, 9, ["b"]));
    window.append(testLines(1, 111, ["\x1b[Kdone", "after"]));
    const rows = window.rows.filter((row) => row.streamId === 1);
    expect(text(shownByRows({ rows }))).toEqual(["a", "99 %done", "after"]);
  });

  test("are one row among the lines of other streams, which show what each shows alone", () => {
    const streams = fc.array(fc.array(lineOrPiece, { minLength: 1, maxLength: 8 }), { minLength: 2, maxLength: 3 });
    fc.assert(
      fc.property(streams, fc.infiniteStream(fc.nat(2)), fc.integer({ min: 1, max: 9 }), fc.boolean(), (made, order, size, forward) => {
        const alone = made.map((lines, at) => windowOf(testLines(at, 0, lines)));
        const left = made.map((lines, at) => testLines(at, 0, lines));
        const merged: Line[] = [];
        for (const next of order) {
          const lines = left.filter((each) => each.length > 0);
          const line = lines[next % lines.length]?.shift();
          if (line === undefined) break;
          merged.push(line);
        }
        const window = new RowWindow();
        if (forward) for (let at = 0; at < merged.length; at += size) window.append(merged.slice(at, at + size));
        else for (let at = merged.length; at > 0; at -= size) window.prepend(merged.slice(Math.max(0, at - size), at));
        for (const [streamId, expected] of alone.entries()) {
          const rows = window.rows.filter((row) => row.streamId === streamId);
          expect(rows.map((row) => [row.sequence, row.nextSequence])).toEqual(expected.rows.map((row) => [row.sequence, row.nextSequence]));
          expect(shownByRows({ rows })).toEqual(shownByRows(expected));
        }
      }),
      { numRuns: 1_500 },
    );
  });
});

describe("a colour that is left on", () => {
  test("goes on in the next lines, as in a terminal", () => {
    const window = windowOf(linesOfLog("\x1b[31mred\nstill\n\x1b[0mplain\nnot\n"));
    expect(shownByRows(window).map((row) => row.styles[0])).toEqual(["foreground=1", "foreground=1", "", ""]);
  });
});

describe("in whatever pages the log is read", () => {
  test("the rows are the same", () => {
    fc.assert(
      fc.property(log, fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 14 }), fc.boolean(), (made, sizes, forward) => {
        const lines = linesOfLog(made);
        const whole = windowOf(lines);
        const pages: Line[][] = [];
        for (let at = 0, page = 0; at < lines.length; page += 1) {
          const size = sizes[page % sizes.length] ?? 1;
          pages.push(lines.slice(at, at + size));
          at += size;
        }
        const window = new RowWindow();
        if (forward) for (const page of pages) window.append(page);
        else for (const page of pages.reverse()) window.prepend(page);
        const places = (rows: RowWindow): unknown[] => rows.rows.map((row) => [row.sequence, row.nextSequence]);
        expect(places(window)).toEqual(places(whole));
        expect(shownByRows(window)).toEqual(shownByRows(whole));
      }),
      { numRuns: 1_500 },
    );
  });

  test("every line is in one row, in order, also when rows are evicted on either side", () => {
    fc.assert(
      fc.property(log, fc.integer({ min: 1, max: 6 }), (made, size) => {
        const lines = linesOfLog(made);
        const window = new RowWindow(4);
        for (let at = 0; at < lines.length; at += size) window.append(lines.slice(at, at + size));
        for (const [at, row] of window.rows.entries()) if (at > 0) expect(row.sequence).toBe(window.rows[at - 1]?.nextSequence);
        const first = window.rows[0]?.sequence ?? 0;
        if (first > 0) {
          window.prepend(lines.slice(Math.max(0, first - size), first));
          for (const [at, row] of window.rows.entries()) if (at > 0) expect(row.sequence).toBe(window.rows[at - 1]?.nextSequence);
        }
      }),
      { numRuns: 500 },
    );
  });
});
