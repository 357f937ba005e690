import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseJump } from "./jump";

const at = (iso: string): number => Date.parse(iso) * 1_000;
const context = { startUs: at("2026-11-23T22:00:00Z"), lastUs: at("2026-11-24T10:30:00Z"), isUtc: true };
const time = (iso: string): unknown => ({ kind: "time", timeUs: at(iso) });

describe("where to go", () => {
  test.each([
    ["120", { kind: "line", sequence: 120 }],
    ["#s1,200", { kind: "line", sequence: 1_200 }],
    ["50%", { kind: "fraction", fraction: 0.5 }],
    ["99.5 %", { kind: "fraction", fraction: 0.995 }],
    ["10:15", time("2026-11-24T10:15:00Z")],
    ["10:15:32.5", time("2026-11-24T10:15:32.500Z")],
    ["23:00", time("2026-11-23T23:00:00Z")],
    ["2026-11-24 09:00", time("2026-11-24T09:00:00Z")],
    ["2026-11-24T09:00:00+01:00", time("2026-11-24T08:00:00Z")],
    ["+1h 30m", time("2026-11-23T23:30:00Z")],
    ["-90s", time("2026-11-24T10:28:30Z")],
    ["101%", null],
    ["25:00", null],
    ["10:61", null],
    ["soon", null],
    ["", null],
  ])("%j", (text, jump) => {
    expect(parseJump(text, context)).toEqual(jump);
  });

  test("never throws, and never leads to no number", () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(..."0123456789:%+-smhd .TZ,") }), (text) => {
        const jump = parseJump(text, context);
        if (jump !== null) expect(Object.values(jump).some((value) => typeof value === "number" && Number.isNaN(value))).toBe(false);
      }),
    );
  });
});
