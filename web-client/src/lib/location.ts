/**
 * The address of what is in view: `/streams/42`, several `/streams/42,43`, and a line in it: `#s120`, or
 * with the stream where there are several: `#42:s120`.
 */
import type { LineTarget } from "./feed/feed";

/** Streams that one view follows at most. */
export const MAX_STREAMS = 32;

export interface View {
  readonly streamIds: readonly number[];
  readonly target: LineTarget | null;
}

export function parseLocation(path: string, hash: string): View {
  const ids = /^\/streams\/([0-9,]+)\/?$/.exec(path)?.[1]?.split(",") ?? [];
  const streamIds = [...new Set(ids.map(Number))]
    .filter((id) => Number.isSafeInteger(id) && id > 0)
    .slice(0, MAX_STREAMS);
  const match = /^#(?:([0-9]+):)?s([0-9]+)/.exec(hash);
  const streamId = match?.[1] === undefined ? streamIds[0] : Number(match[1]);
  const sequence = Number(match?.[2]);
  if (!match || streamId === undefined || !streamIds.includes(streamId) || !Number.isSafeInteger(sequence)) {
    return { streamIds, target: null };
  }
  return { streamIds, target: { streamId, sequence } };
}

export function formatPath(streamIds: readonly number[]): string {
  return streamIds.length === 0 ? "/" : `/streams/${streamIds.join(",")}`;
}

export function formatHash(view: View): string {
  if (view.target === null) return "";
  const { streamId, sequence } = view.target;
  return view.streamIds.length > 1 ? `#${streamId}:s${sequence}` : `#s${sequence}`;
}

/** `120`, `s120`, `#s120` or `120,000`: what a person types to jump to a line; null when it is none. */
export function parseSequence(text: string): number | null {
  const match = /^#?s?([0-9][0-9,_ ]*)$/i.exec(text.trim());
  if (match?.[1] === undefined) return null;
  const sequence = Number(match[1].replace(/[,_ ]/g, ""));
  return Number.isSafeInteger(sequence) ? sequence : null;
}
