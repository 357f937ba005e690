/** What a failed call means: whether trying again can help, and how to say it. */
import { Code, ConnectError } from "@connectrpc/connect";

export interface Failure {
  /** Trying the same again cannot help. */
  readonly fatal: boolean;
  /** The relay does not know the cursor: it has another store than before. */
  readonly otherStore: boolean;
  /** How long the relay asks to wait before the next attempt, in milliseconds; absent when it does not say. */
  readonly retryAfterMs?: number;
  /** A sentence without a full stop. */
  readonly message: string;
}

const FATAL = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.PermissionDenied,
  Code.Unauthenticated,
  Code.Unimplemented,
  Code.OutOfRange,
]);

/** The longest wait that is believed of a relay. */
const LONGEST_WAIT_SECONDS = 600;

/** Nothing came for longer than it should take. */
export class SilenceError extends Error {
  override name = "SilenceError";
  /** Not even the first message came. */
  readonly isFromBeginning: boolean;

  constructor(isFromBeginning: boolean) {
    super();
    this.isFromBeginning = isFromBeginning;
  }
}

/** The relay closed a call that was to stay open. */
export class StreamClosedError extends Error {
  override name = "StreamClosedError";
}

export function describeFailure(error: unknown): Failure {
  if (error instanceof SilenceError) return retry("no sign of life from the relay");
  if (error instanceof StreamClosedError) return retry("the relay stopped");
  const failure = ConnectError.from(error);
  const message = failure.rawMessage.replace(/\.$/, "") || "the call failed";
  if (failure.code === Code.FailedPrecondition) return { fatal: false, otherStore: true, message };
  if (FATAL.has(failure.code)) return { fatal: true, otherStore: false, message };
  const retryAfterSeconds = Number(failure.metadata.get("retry-after") ?? Number.NaN);
  if (retryAfterSeconds > 0) {
    return { ...retry(message), retryAfterMs: Math.min(retryAfterSeconds, LONGEST_WAIT_SECONDS) * 1_000 };
  }
  if (failure.code === Code.Unavailable && /stopp|shut/i.test(message)) return retry("the relay stopped");
  // The browser's own words for it differ ("Failed to fetch", "Load failed", "NetworkError …").
  if (/fetch|network|load failed|HTTP 50[234]/i.test(message)) return retry("the relay cannot be reached");
  return retry(message);
}

function retry(message: string): Failure {
  return { fatal: false, otherStore: false, message };
}
