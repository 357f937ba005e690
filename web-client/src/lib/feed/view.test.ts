import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { testLines } from "../testing/blocks";
import { Follow } from "./follow";
import { contentPx, evenPlaces, fractionOf, sliceAt, thumbOf, unevenPlaces } from "./geometry";
import { RowHeights } from "./heights";
import { cutBytes, LineRow, parsed, rowText } from "./row";
import { textBetween } from "./selection";
import { Slots } from "./slots";
import { RowWindow } from "./window";

describe("following", () => {
  test("stops when the reader scrolls away and begins again at the end", () => {
    const follow = new Follow();
    follow.arrived(5);
    expect(follow.newLines).toBe(0);
    follow.scrolled({ distanceToEndPx: 300, showsNewest: true });
    follow.arrived(5);
    expect([follow.following, follow.newLines]).toEqual([false, 5]);
    follow.scrolled({ distanceToEndPx: 0, showsNewest: true });
    expect([follow.following, follow.newLines]).toEqual([true, 0]);
  });

  test("does not begin at the end of a window that is not the end of the stream", () => {
    const follow = new Follow(false);
    follow.scrolled({ distanceToEndPx: 0, showsNewest: false });
    expect(follow.following).toBe(false);
  });
});

describe("geometry", () => {
  test("paints a bounded number of rows wherever the view stands", () => {
    fc.assert(
      fc.property(fc.double({ min: -100, max: 1e9, noNaN: true }), fc.nat(3_000), fc.nat(20_000), (top, view, rows) => {
        const { from, to } = sliceAt(top, view, evenPlaces(rows));
        expect(from).toBeGreaterThanOrEqual(0);
        expect(to).toBeLessThanOrEqual(rows);
        expect(to - from).toBeLessThanOrEqual(Math.ceil(view / 20) + 25);
      }),
    );
  });

  test("stays far below the height that browsers allow", () => {
    expect(contentPx(evenPlaces(20_000))).toBeLessThan(1_000_000);
  });

  test("a dragged thumb points where it would be drawn, at any length", () => {
    fc.assert(
      fc.property(fc.integer({ min: 100, max: 10_000_000 }), fc.double({ min: 0, max: 1, noNaN: true }), (total, way) => {
        const thumb = thumbOf(way * (total - 40), 40, total, 700);
        expect(thumb.topPx + thumb.heightPx).toBeLessThanOrEqual(700.001);
        expect(fractionOf(thumb.topPx, thumb, 700)).toBeCloseTo(way, 6);
      }),
    );
  });
});

describe("the window", () => {
  test("evicts on the far side and says what went", () => {
    const window = new RowWindow(3);
    expect(window.append(testLines(1, 10, ["a", "b", "c"]))).toEqual([]);
    expect(window.append(testLines(1, 13, ["d"])).map((row) => row.sequence)).toEqual([10]);
    expect(window.prepend(testLines(1, 9, ["x", "y"])).map((row) => row.sequence)).toEqual([12, 13]);
  });

  test("is bounded by bytes where lines are long", () => {
    const window = new RowWindow(1_000, 1_000);
    for (let at = 0; at < 20; at += 1) window.append(testLines(1, at, ["x".repeat(300)]));
    expect(window.rows.map((row) => row.sequence)).toEqual([17, 18, 19]);
  });

  test("finds the row of a line that is not its first", () => {
    const window = new RowWindow();
    window.append(testLines(1, 0, ["a", { text: "b", partial: true }, "c", "d"]));
    expect([0, 1, 2, 3, 4].map((sequence) => window.indexOf(1, sequence))).toEqual([0, 1, 1, 2, -1]);
  });
});

describe("a row", () => {
  test("replaces invalid UTF-8 and joins a character that two pieces share", () => {
    const window = new RowWindow();
    window.append(testLines(1, 0, [{ text: new Uint8Array([0x61, 0xff]) }, { text: new Uint8Array([0xc3]), partial: true }, { text: new Uint8Array([0xa9]) }]));
    expect(window.rows.map((row) => (row.kind === "line" ? parsed(row).text : ""))).toEqual(["a\ufffd", "é"]);
  });

  test("decodes no more of a line of a mebibyte than can be painted", () => {
    const [line] = testLines(1, 0, ["x".repeat(1_000_000)]);
    if (!line) throw new Error("no line");
    expect(rowText(new LineRow(line))).toHaveLength(131_072);
    expect(cutBytes(new LineRow(line))).toBe(1_000_000 - 131_072);
  });
});

describe("painted elements", () => {
  test("keep their rows while these are in view, and go to new rows otherwise", () => {
    const slots = new Slots();
    const first = slots.assign(["a", "b", "c"]);
    expect(new Set(first).size).toBe(3);
    const second = slots.assign(["b", "c", "d"]);
    expect(second.slice(0, 2)).toEqual(first.slice(1));
    expect(second[2]).toBe(first[0]);
    expect(new Set(slots.assign(["x", "y", "z"]))).toEqual(new Set(first));
    fc.assert(
      fc.property(fc.array(fc.uniqueArray(fc.integer({ min: 0, max: 20 }).map(String), { maxLength: 12 })), (frames) => {
        const pool = new Slots();
        let before = new Map<string, number>();
        for (const keys of frames) {
          const numbers = pool.assign(keys);
          expect(new Set(numbers).size).toBe(keys.length);
          for (const [at, key] of keys.entries()) if (before.has(key)) expect(numbers[at]).toBe(before.get(key));
          before = new Map(keys.map((key, at) => [key, numbers[at] ?? -1]));
        }
      }),
    );
  });
});

describe("a copy", () => {
  test("is the text of the rows between two places, in either direction, without colours", () => {
    const window = new RowWindow();
    window.append(testLines(1, 0, ["\x1b[31mone\x1b[0m", "50 %\r99 %", "three"]));
    const place = (sequence: number, offset: number) => ({ key: `1:${sequence}`, offset });
    expect(textBetween(window.rows, place(0, 1), place(2, 2))).toBe("ne\n99 %\nth");
    expect(textBetween(window.rows, place(2, 2), place(0, 1))).toBe("ne\n99 %\nth");
    expect(textBetween(window.rows, place(2, 4), place(2, 1))).toBe("hre");
    expect(textBetween(window.rows, place(9, 0), place(0, 1))).toBeNull();
  });
});

describe("wrapped rows", () => {
  test("stand one below the other, and every place is in the row that stands there", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 60 }), fc.integer({ min: -100, max: 70_000 }), (lines, px) => {
        const places = unevenPlaces(lines.map((count) => count * 20));
        const at = places.rowAt(px);
        expect(px < 0 || px >= places.topPx(places.count) || (places.topPx(at) <= px && px < places.topPx(at + 1))).toBe(true);
        if (px < 0) expect(at).toBe(0);
        if (px >= places.topPx(places.count)) expect(at).toBe(places.count - 1);
        const { from, to } = sliceAt(px, 800, places);
        expect(to - from).toBeLessThanOrEqual(800 / 20 + 26);
        expect(from <= at && at < to).toBe(true);
      }),
    );
    expect(sliceAt(0, 800, unevenPlaces([]))).toEqual({ from: 0, to: 0 });
  });

  test("of one visual line each stand where rows that are not wrapped do", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), fc.integer({ min: -100, max: 5_000 }), (count, px) => {
        const [even, uneven] = [evenPlaces(count), unevenPlaces(Array.from({ length: count }, () => 20))];
        expect(uneven.rowAt(px)).toBe(even.rowAt(px));
        expect(uneven.topPx(count)).toBe(even.topPx(count));
      }),
    );
  });

  test("are as high as they were when painted, and about as high as their text is long before", () => {
    const window = new RowWindow(3);
    window.append(testLines(1, 0, ["short", "x".repeat(250), "\x1b[31mred\x1b[0m"]));
    const heights = new RowHeights();
    heights.columns = 100;
    expect(contentPx(heights.placesOf(window.rows)) - contentPx(evenPlaces(0))).toBe(20 + 60 + 20);
    const [, long] = window.rows;
    if (!long) throw new Error("no row");
    expect(heights.measure(long, 80)).toBe(true);
    expect(heights.measure(long, 80)).toBe(false);
    expect(heights.placesOf(window.rows).topPx(2)).toBe(100);
    // Rows come and go at the ends.
    window.append(testLines(1, 3, ["y".repeat(150)]));
    expect([1, 2, 3].map((index) => heights.placesOf(window.rows).topPx(index))).toEqual([80, 100, 140]);
    // In another width nothing that was measured counts.
    heights.columns = 50;
    expect(heights.placesOf(window.rows).topPx(1)).toBe(100);
  });
});
