/** How a stream stands for somebody who looks over all of them. */
import { StreamState, type Stream } from "../../gen/millstream/v1/stream_pb";
import { formatSpan } from "../text/format";
import { describeEnd, outcomeOfEnd } from "../text/outcome";

/** In the order in which they stand in the overview. `running` and `stalled` are runs, `live` is anything else. */
export const STANDINGS = ["stalled", "running", "live", "failed", "away", "passed", "ended"] as const;

export type Standing = (typeof STANDINGS)[number];

/** A run that writes nothing for so long is called stalled, milliseconds. */
export const STALLED_AFTER_MS = 60_000;

/**
 * `grewMs` is when this page last saw the stream grow, by its own clock; null when it has not. Capture times
 * are from the build host's clock, which may be off, so they count only until then.
 */
export function quietMs(stream: Stream, grewMs: number | null, nowMs: number): number {
  if (grewMs !== null) return nowMs - grewMs;
  const newest = Math.max(Number(stream.lastLineUnixUs), Number(stream.run?.startUnixUs ?? 0n), Number(stream.createdUnixUs));
  return Math.max(0, nowMs - newest / 1_000);
}

export function standingOf(stream: Stream, quiet: number): Standing {
  if (stream.end !== undefined) {
    const outcome = outcomeOfEnd(stream.end);
    return outcome === "passed" || outcome === "failed" ? outcome : "ended";
  }
  if (stream.state === StreamState.ENDED) return "ended";
  if (stream.state !== StreamState.LIVE) return "away";
  if (stream.run === undefined) return "live";
  return quiet >= STALLED_AFTER_MS ? "stalled" : "running";
}

/** Short, for a column: "running for 3 min 12 s", "no output for 2 min 0 s", "exit 101 after 8.2 s", "passed after 8.2 s". */
export function describeStanding(stream: Stream, quiet: number, nowMs: number): string {
  if (stream.end !== undefined) {
    return describeEnd(stream.end, stream.run).replace(/^ended with exit 0\b/, "passed").replace(/^ended (?:with|by) /, "");
  }
  switch (standingOf(stream, quiet)) {
    case "stalled":
      return `no output for ${formatSpan(quiet)}`;
    case "running":
      return `running for ${formatSpan(Math.max(0, nowMs - Number(stream.run?.startUnixUs ?? 0n) / 1_000))}`;
    case "away":
      return "agent is away";
    case "ended":
      return "ended";
    default:
      return "live";
  }
}

/** The same in one word, for chips. */
export const STANDING_WORDS: Record<Standing, string> = {
  stalled: "Stalled",
  running: "Running",
  live: "Live",
  failed: "Failed",
  away: "Away",
  passed: "Passed",
  ended: "Ended",
};
