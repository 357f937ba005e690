/** How a stream stands, in one word for its dot and in a sentence for people. */
import { EndReason, StreamState, type Run, type Stream, type StreamEnd } from "../../gen/millstream/v1/stream_pb";
import { formatSpan } from "./format";

export type Outcome = "live" | "away" | "passed" | "failed" | "ended";

export function outcomeOf(stream: Stream): Outcome {
  if (stream.end !== undefined) return outcomeOfEnd(stream.end);
  switch (stream.state) {
    case StreamState.LIVE:
      return "live";
    case StreamState.ENDED:
      return "ended";
    default:
      return "away";
  }
}

export function outcomeOfEnd(end: StreamEnd): Outcome {
  switch (end.reason) {
    case EndReason.EXITED:
      return end.signal === undefined && (end.exitCode ?? 0) === 0 ? "passed" : "failed";
    case EndReason.START_FAILED:
      return "failed";
    default:
      return "ended";
  }
}

const SIGNALS = new Map([
  [1, "SIGHUP"],
  [2, "SIGINT"],
  [3, "SIGQUIT"],
  [6, "SIGABRT"],
  [9, "SIGKILL"],
  [11, "SIGSEGV"],
  [13, "SIGPIPE"],
  [15, "SIGTERM"],
]);

/** "ended with exit 101 after 3 min 12 s" */
export function describeEnd(end: StreamEnd, run: Run | undefined): string {
  const spanMs = run !== undefined && run.startUnixUs > 0n ? Number(end.endUnixUs - run.startUnixUs) / 1_000 : 0;
  const after = spanMs > 0 ? ` after ${formatSpan(spanMs)}` : "";
  switch (end.reason) {
    case EndReason.EXITED:
      if (end.signal !== undefined) {
        return `ended by ${SIGNALS.get(end.signal) ?? `signal ${end.signal}`}${after}`;
      }
      return `ended with exit ${end.exitCode ?? 0}${after}`;
    case EndReason.START_FAILED:
      return `could not be started${end.message ? `: ${end.message}` : ""}`;
    case EndReason.LOST:
      return `lost sight of the process${end.message ? `: ${end.message}` : ""}${after}`;
    default:
      return `ended${after}`;
  }
}

/** For the tool tip and the screen reader. */
export function describeStream(stream: Stream): string {
  if (stream.end !== undefined) return describeEnd(stream.end, stream.run);
  return stream.state === StreamState.LIVE ? "live" : "agent is away";
}
