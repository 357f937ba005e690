import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseLine } from "./parse";
import { PLAIN, type Style } from "./style";

const text = (line: string): string => parseLine(line).text;
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f-\x9f]/;

/** Pieces that hit the parser where it hurts, between ordinary text. */
const piece = fc.oneof(
  fc.string({ unit: "binary", maxLength: 8 }),
  fc.constantFrom("\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b(", "\x9b", "\x9d", "\r", "\b", "\t", "\x07", "\x1b\\", "\x00", "\x7f"),
  fc.constantFrom("<script>", "</span>", "&lt;", '" onload="', "javascript:", "é", "👩‍👩‍👧", "\u0301", "\u202e"),
  fc.tuple(fc.array(fc.integer({ min: -9, max: 99_999_999_999 }), { maxLength: 9 }), fc.constantFrom(..."mKJCDGHABfhlrsu@P")).map(
    ([numbers, final]) => `\x1b[${numbers.join(";")}${final}`,
  ),
);
const hostile = fc.array(piece, { maxLength: 40 }).map((pieces) => pieces.join(""));

describe("parseLine, whatever the input", () => {
  test("never throws, leaves no control character, and its spans are its text", () => {
    fc.assert(
      fc.property(hostile, (line) => {
        const parsed = parseLine(line);
        expect(parsed.text).not.toMatch(CONTROL);
        expect(parsed.spans.map((span) => span.text).join("")).toBe(parsed.text);
        expect(parsed.spans.every((span) => span.text !== "")).toBe(true);
        for (const { style } of parsed.spans) {
          for (const colour of [style.foreground, style.background]) {
            if (typeof colour === "string") expect(colour).toMatch(/^#[0-9a-f]{6}$/);
            else if (colour !== null) expect(colour).toBeLessThan(16);
          }
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("leaves text without control characters as it is", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 80 }), (line) => {
        fc.pre(!CONTROL.test(line));
        expect(text(line)).toBe(line);
      }),
    );
  });

  test("keeps markup as the text that it is", () => {
    const markup = `<img src=x onerror="alert(1)">&amp;<script>alert(2)</script>`;
    expect(parseLine(`\x1b[31m${markup}\x1b[0m`).spans).toEqual([{ text: markup, style: { ...PLAIN, foreground: 1 } }]);
  });

  test("bounds what a line can cost", () => {
    const long = parseLine("x".repeat(5_000_000));
    expect(long.text).toHaveLength(16_384);
    expect(long.hiddenCharacters).toBe(5_000_000 - 16_384);
    expect(parseLine("\x1b[999999999Cx").text).toBe("");
    expect(parseLine(`\x1b[1ma${"\u0301".repeat(10_000)}`).text.length).toBeLessThan(100);
    expect(text(`${"50 %\r".repeat(100_000)}done`)).toBe("done");
  });
});

describe("colours and attributes", () => {
  const style = (line: string): Partial<Style> | undefined => parseLine(line).spans[0]?.style;

  test.each([
    ["\x1b[31mx", { foreground: 1 }],
    ["\x1b[97;44mx", { foreground: 15, background: 4 }],
    ["\x1b[1;2;3;4;7;9mx", { bold: true, dim: true, italic: true, underline: true, inverse: true, strike: true }],
    ["\x1b[38;5;9mx", { foreground: 9 }],
    ["\x1b[38;5;208mx", { foreground: "#ff8700" }],
    ["\x1b[48;5;237mx", { background: "#3a3a3a" }],
    ["\x1b[38;2;1;2;255mx", { foreground: "#0102ff" }],
    ["\x1b[38:2::1:2:255mx", { foreground: "#0102ff" }],
    ["\x1b[38:5:208mx", { foreground: "#ff8700" }],
    ["\x1b[58;2;1;2;3;31mx", { foreground: 1 }],
    ["\x1b[4:0mx", {}],
    ["\x1b[1m\x1b[mx", {}],
    ["\x1b[1;31m\x1b[22;39mx", {}],
    ["\x1b[38;5mx", {}],
    ["\x1b[?25l\x1b[>4;1mx", {}],
    ["\x9b31mx", { foreground: 1 }],
  ])("%j", (line, expected) => {
    expect(style(line)).toEqual({ ...PLAIN, ...expected });
  });
});

describe("redraws", () => {
  test.each([
    ["10 %\r50 %\r100 %", "100 %"],
    ["100 %\rdone", "done%"],
    ["100 %\r\x1b[Kdone", "done"],
    ["keep\x1b[K", "keep"],
    ["wipe\x1b[2K\rnew", "new"],
    ["abc\x1b[1K", "   "],
    ["abc\x1b[2Dx", "axc"],
    ["a\x1b[3Cb", "a   b"],
    ["abc\x1b[1Gx", "xbc"],
    ["teh\b\bhe", "the"],
    ["line\r", "line"],
    ["a\tb\r\x1b[Kc\td", "c       d"],
    ["e\u0301x\rE", "Ex"],
  ])("%j shows %j", (line, expected) => {
    expect(text(line)).toBe(expected);
  });
});

describe("links", () => {
  const links = (line: string): (string | null)[] => parseLine(line).spans.map((span) => span.style.link);

  test("lead where they say, until they end", () => {
    expect(links("see \x1b]8;id=1;https://example.com/a?b=c\x1b\\here\x1b]8;;\x1b\\.")).toEqual([null, "https://example.com/a?b=c", null]);
    expect(links("\x1b]8;;mailto:a@example.com\x07mail\x1b[0mstill")).toEqual(["mailto:a@example.com"]);
  });

  test.each(["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,<script>", "vbscript:x", "file:///etc/passwd", "//example.com", "/relative", "blob:https://x/y", "https://exa mple.com", "java\tscript:alert(1)", "not a url"])(
    "%j is none",
    (address) => {
      expect(links(`\x1b]8;;${address}\x07text`)).toEqual([null]);
    },
  );

  test("whatever is in them, only ever lead to a safe scheme", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary", maxLength: 40 }), fc.webUrl(), fc.constantFrom("javascript:", "data:", "https:", "mailto:")), fc.string(), (address, tail) => {
        for (const link of links(`\x1b]8;;${address}${tail}\x07x`)) if (link !== null) expect(link).toMatch(/^(?:https?:\/\/|mailto:)/);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("what is not for this row", () => {
  test.each([
    ["\x1b]0;title\x07text", "text"],
    ["\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\", "link"],
    ["\x1bPq#0\x1b\\text", "text"],
    ["\x1b(Btext\x1b=\x1b7", "text"],
    ["\x1b[?2004htext\x1b[6n", "text"],
    ["a\x00b\x07c\x0bd", "abcd"],
    ["text\x1b", "text"],
    ["text\x1b[31", "text"],
    ["\x1b]0;never ends", "0;never ends"],
  ])("%j shows %j", (line, expected) => {
    expect(text(line)).toBe(expected);
  });
});
