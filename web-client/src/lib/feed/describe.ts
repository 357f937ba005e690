/** The connection state in words. */
import { describeEnd, outcomeOfEnd, type Outcome } from "../text/outcome";
import { formatCount, formatLines } from "../text/format";
import type { Phase } from "../rpc/tail";
import type { Track } from "./track";

export type Tone = "quiet" | "live" | "warning" | "passed" | "failed";

export interface StateInWords {
  readonly text: string;
  readonly tone: Tone;
}

export interface FeedFacts {
  readonly phase: Phase;
  readonly tracks: ReadonlyMap<number, Track>;
  /** Streams whose agent is away, as the list of streams knows best. */
  readonly away?: ReadonlySet<number>;
}

export function describeState({ phase, tracks, away }: FeedFacts, nowMs: number): StateInWords {
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
      // What to do about it stands below, where there is room.
      return { text: phase.reason.split(";")[0] ?? phase.reason, tone: "failed" };
    case "live":
    case "polling":
    case "ended":
      return describeDelivery(all, phase) ?? describeStreams(all, away ?? new Set(), phase.kind === "polling");
  }
}

/** What a reader has to know before how the streams stand: lines that are missing, or not here yet. */
function describeDelivery(tracks: readonly Track[], phase: Phase): StateInWords | null {
  if (phase.kind === "ended") return null;
  const behind = tracks.reduce((lines, track) => lines + track.behind, 0);
  if (behind > 0) return { text: `behind by ${formatLines(behind)}`, tone: "warning" };
  const missing = tracks.reduce((lines, track) => lines + track.missing, 0);
  if (missing > 0) return { text: `live, with a gap of ${formatLines(missing)}`, tone: "warning" };
  return null;
}

function describeStreams(tracks: readonly Track[], away: ReadonlySet<number>, isPolled: boolean): StateInWords {
  const [only] = tracks;
  if (tracks.length === 1 && only) {
    if (only.isUnknown) return { text: `there is no stream ${only.streamId}`, tone: "failed" };
    if (only.end !== null) {
      return { text: describeEnd(only.end, only.stream?.run), tone: toneOf(outcomeOfEnd(only.end)) };
    }
    if (away.has(only.streamId)) return { text: "waiting for the agent, which is away", tone: "warning" };
    if (only.head === 0) return { text: "waiting for the first line", tone: "live" };
    return { text: isPolled ? "live, read every second" : "live", tone: "live" };
  }
  const ended = tracks.filter((track) => track.end !== null).length;
  const gone = tracks.filter((track) => track.end === null && away.has(track.streamId)).length;
  const live = tracks.length - ended - gone;
  if (ended === tracks.length) return { text: `all ${formatCount(ended)} streams ended`, tone: "quiet" };
  if (live === tracks.length) return { text: `${live} streams live`, tone: "live" };
  const parts = [live > 0 && `${live} live`, gone > 0 && `${gone} away`, ended > 0 && `${ended} ended`];
  return { text: parts.filter(Boolean).join(", "), tone: live > 0 ? "live" : "warning" };
}

function toneOf(outcome: Outcome): Tone {
  return outcome === "passed" || outcome === "failed" ? outcome : "quiet";
}

/** The pill that leads back to the end. */
export function describeReturn(newLines: number): string {
  return newLines === 0 ? "Back to the end" : formatLines(newLines, "new line");
}
