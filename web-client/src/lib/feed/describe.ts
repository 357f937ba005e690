/** The connection state in words. */
import { describeEnd, outcomeOfEnd, type Outcome } from "../text/outcome";
import { formatCount, formatLines } from "../text/format";
import type { Phase } from "../rpc/tail-session";
import type { Track } from "./track";

export type Tone = "quiet" | "live" | "warning" | "passed" | "failed";

export interface StateInWords {
  readonly text: string;
  readonly tone: Tone;
}

export interface FeedFacts {
  readonly phase: Phase;
  readonly tracks: ReadonlyMap<number, Track>;
}

export function describeState({ phase, tracks }: FeedFacts, nowMs: number): StateInWords {
  const all = [...tracks.values()];
  switch (phase.kind) {
    case "connecting":
      return { text: "connecting", tone: "quiet" };
    case "catching-up":
      return { text: "reading history", tone: "quiet" };
    case "resuming": {
      const [only] = all;
      const from = all.length === 1 && only ? ` from s${only.received}` : ` ${all.length} streams`;
      return { text: `resuming${from}`, tone: "warning" };
    }
    case "reconnecting": {
      const seconds = Math.max(1, Math.ceil((phase.atMs - nowMs) / 1_000));
      return { text: `${phase.reason}; reconnecting in ${seconds} s`, tone: "warning" };
    }
    case "failed":
      return { text: phase.reason, tone: "failed" };
    case "live":
    case "ended":
      return describeStreams(all);
  }
}

function describeStreams(tracks: readonly Track[]): StateInWords {
  const [only] = tracks;
  if (tracks.length === 1 && only) {
    if (only.isUnknown) return { text: `there is no stream ${only.streamId}`, tone: "failed" };
    if (only.end !== null) {
      return { text: describeEnd(only.end, only.stream?.run), tone: toneOf(outcomeOfEnd(only.end)) };
    }
    if (only.head === 0) return { text: "waiting for the first line", tone: "live" };
    return { text: "live", tone: "live" };
  }
  const ended = tracks.filter((track) => track.end !== null).length;
  const live = tracks.length - ended;
  if (live === 0) return { text: `all ${formatCount(ended)} streams ended`, tone: "quiet" };
  return { text: ended === 0 ? `${live} streams live` : `${live} live, ${ended} ended`, tone: "live" };
}

function toneOf(outcome: Outcome): Tone {
  return outcome === "passed" || outcome === "failed" ? outcome : "quiet";
}

/** The pill that leads back to the end. */
export function describeReturn(newLines: number): string {
  return newLines === 0 ? "Back to the end" : formatLines(newLines, "new line");
}
