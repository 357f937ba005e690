/**
 * What a person types to go somewhere: a line (`120`, `s120`), a percentage (`50%`), a time of day (`10:15`), a date and
 * time (`2026-11-24 10:15:32`), or a span from the start (`+5m`) or before the end (`-90s`).
 */
import { parseSequence } from "./location";

export type Jump =
  | { readonly kind: "line"; readonly sequence: number }
  | { readonly kind: "fraction"; readonly fraction: number }
  | { readonly kind: "time"; readonly timeUs: number };

/** What times are counted from. */
export interface JumpContext {
  /** Capture times of the first and the last line, microseconds since the Unix epoch. */
  readonly startUs: number;
  readonly lastUs: number;
  readonly isUtc: boolean;
}

const DAY_US = 86_400_000_000;
const UNIT_US: Readonly<Record<string, number>> = { d: DAY_US, h: 3_600_000_000, m: 60_000_000, s: 1_000_000 };

/** Null when the text means none of these. */
export function parseJump(text: string, context: JumpContext): Jump | null {
  const wanted = text.trim();
  const percent = /^(\d{1,3}(?:\.\d+)?)\s*%$/.exec(wanted);
  if (percent) return Number(percent[1]) <= 100 ? { kind: "fraction", fraction: Number(percent[1]) / 100 } : null;
  const timeUs = parseSpan(wanted, context) ?? parseTimeOfDay(wanted, context) ?? parseDate(wanted, context);
  if (timeUs !== null) return { kind: "time", timeUs };
  const sequence = parseSequence(wanted);
  return sequence === null ? null : { kind: "line", sequence };
}

function parseSpan(text: string, { startUs, lastUs }: JumpContext): number | null {
  const match = /^([+-])((?:\d{1,6}(?:\.\d+)?\s*[dhms]\s*)+)$/.exec(text);
  if (match?.[2] === undefined) return null;
  let spanUs = 0;
  for (const [, count, unit = ""] of match[2].matchAll(/([\d.]+)\s*([dhms])/g)) spanUs += Number(count) * (UNIT_US[unit] ?? 0);
  return match[1] === "+" ? startUs + spanUs : lastUs - spanUs;
}

/** On the newest day that has such a time before the last line. */
function parseTimeOfDay(text: string, { lastUs, isUtc }: JumpContext): number | null {
  const match = /^(\d{1,2}):(\d\d)(?::(\d\d(?:\.\d{1,6})?))?$/.exec(text);
  if (match === null) return null;
  const [hours, minutes, seconds] = [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)];
  if (hours > 23 || minutes > 59 || seconds >= 60) return null;
  const day = new Date(lastUs / 1_000);
  if (isUtc) day.setUTCHours(hours, minutes, 0, 0);
  else day.setHours(hours, minutes, 0, 0);
  const timeUs = day.getTime() * 1_000 + Math.round(seconds * 1_000_000);
  return timeUs > lastUs ? timeUs - DAY_US : timeUs;
}

function parseDate(text: string, { isUtc }: JumpContext): number | null {
  const match = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(Z|[+-]\d\d:?\d\d)?)?$/i.exec(text);
  if (match === null) return null;
  const zone = match[3] ?? (isUtc ? "Z" : "");
  const milliseconds = Date.parse(`${match[1]}T${match[2] ?? "00:00"}${zone.toUpperCase()}`);
  return Number.isNaN(milliseconds) ? null : milliseconds * 1_000;
}
