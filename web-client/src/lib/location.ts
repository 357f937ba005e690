/**
 * The address of what is in view. `/` is the overview. `/streams/42` shows a stream, `/streams/42,43` two
 * merged, `/streams/42,43/57` these two in one pane and 57 in a second one beside it. `/compare/41/57`
 * compares two runs. The hash names a line or several: `#s120`, `#s120-s145`, or with its stream where several are in view,
 * `#42:s120`.
 */
import type { LineTarget } from "./feed/feed";

/** Streams that one pane follows at most. */
export const MAX_STREAMS = 32;

/** Panes that stand side by side at most. */
export const MAX_PANES = 6;

/** The streams of each pane. */
export type Panes = readonly (readonly number[])[];

export interface Comparison {
  readonly good: number;
  readonly failed: number;
}

export interface View {
  readonly panes: Panes;
  readonly comparison: Comparison | null;
  readonly target: LineTarget | null;
}

export const OVERVIEW: View = { panes: [], comparison: null, target: null };

export function parseLocation(path: string, hash: string): View {
  const compared = /^\/compare\/([0-9]+)\/([0-9]+)\/?$/.exec(path);
  if (compared) {
    const [good, failed] = [Number(compared[1]), Number(compared[2])];
    return isId(good) && isId(failed) ? { ...OVERVIEW, comparison: { good, failed } } : OVERVIEW;
  }
  const listed = /^\/streams\/([0-9,/]+)$/.exec(path)?.[1]?.split("/") ?? [];
  const panes = paneList(listed.map((ids) => ids.split(",").map(Number)));
  return { panes, comparison: null, target: parseHash(hash, streamsOf(panes)) };
}

function parseHash(hash: string, streamIds: readonly number[]): LineTarget | null {
  const match = /^#(?:([0-9]+):)?s([0-9]+)(?:-s?([0-9]+))?/.exec(hash);
  const streamId = match?.[1] === undefined ? streamIds[0] : Number(match[1]);
  const sequence = Number(match?.[2]);
  if (!match || streamId === undefined || !streamIds.includes(streamId) || !Number.isSafeInteger(sequence)) return null;
  const last = Number(match[3]);
  if (!Number.isSafeInteger(last) || last === sequence) return { streamId, sequence };
  return { streamId, sequence: Math.min(sequence, last), last: Math.max(sequence, last) };
}

/** Panes as they may be: valid ids, each once in a pane, no empty pane, none too many. */
export function paneList(panes: Panes): Panes {
  return panes
    .map((ids) => [...new Set(ids)].filter(isId).slice(0, MAX_STREAMS))
    .filter((ids) => ids.length > 0)
    .slice(0, MAX_PANES);
}

function isId(id: number): boolean {
  return Number.isSafeInteger(id) && id > 0;
}

/** Every stream that is in view, once. */
export function streamsOf(panes: Panes): number[] {
  return [...new Set(panes.flat())];
}

export function formatPath({ panes, comparison }: Pick<View, "panes" | "comparison">): string {
  if (comparison !== null) return `/compare/${comparison.good}/${comparison.failed}`;
  return panes.length === 0 ? "/" : `/streams/${panes.map((ids) => ids.join(",")).join("/")}`;
}

export function formatHash({ panes, target }: Pick<View, "panes" | "target">): string {
  if (target === null) return "";
  const { streamId, sequence, last } = target;
  const lines = last === undefined ? `s${sequence}` : `s${sequence}-s${last}`;
  return streamsOf(panes).length > 1 ? `#${streamId}:${lines}` : `#${lines}`;
}

/** Whether a row is one of the lines that a link points at. */
export function isWithin(target: LineTarget, row: { streamId: number; sequence: number; nextSequence: number }): boolean {
  return target.streamId === row.streamId && row.sequence <= (target.last ?? target.sequence) && target.sequence < row.nextSequence;
}

/** The target when a line is chosen: alone, let go of when it was chosen already, or up to it from the one before. */
export function choose(before: LineTarget | null, streamId: number, sequence: number, extendsRange: boolean): LineTarget | null {
  if (!extendsRange || before?.streamId !== streamId) {
    const isSame = before?.streamId === streamId && before.sequence === sequence && before.last === undefined;
    return isSame ? null : { streamId, sequence };
  }
  const [first, last] = [Math.min(before.sequence, sequence), Math.max(before.sequence, sequence)];
  return first === last ? { streamId, sequence } : { streamId, sequence: first, last };
}

/** `120`, `s120`, `#s120` or `120,000`: what a person types to jump to a line; null when it is none. */
export function parseSequence(text: string): number | null {
  const match = /^#?s?([0-9][0-9,_ ]*)$/i.exec(text.trim());
  if (match?.[1] === undefined) return null;
  const sequence = Number(match[1].replace(/[,_ ]/g, ""));
  return Number.isSafeInteger(sequence) ? sequence : null;
}
