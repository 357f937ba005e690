/** Tells a quiet stream from a dead one: the relay sends a heartbeat every 10 seconds. */
import { SilenceError } from "./failure";

/** Silence after which a stream is taken for dead. */
export interface Limits {
  /** Before the first message, which the relay sends at once; milliseconds. */
  readonly firstMs: number;
  /** Between two messages, milliseconds. */
  readonly nextMs: number;
}

export const DEFAULT_LIMITS: Limits = { firstMs: 8_000, nextMs: 25_000 };

/**
 * The messages of `open`'s stream. Throws SilenceError, and aborts the call, when none comes within the
 * limits; ends without an error when `signal` aborts.
 */
export async function* watched<T>(
  open: (signal: AbortSignal) => AsyncIterable<T>,
  signal: AbortSignal,
  limits: Limits = DEFAULT_LIMITS,
): AsyncGenerator<T> {
  const call = new AbortController();
  const stop = (): void => call.abort();
  let silent = false;
  signal.addEventListener("abort", stop);
  // One timer for many messages: it finds out when it is over whether anything came.
  let isFirst = true;
  /** Whoever reads is done with the last message: only then it is the relay that is silent. */
  let isTaken = true;
  let sinceMs = performance.now();
  const expire = (): void => {
    const limitMs = isFirst ? limits.firstMs : limits.nextMs;
    const leftMs = isTaken ? sinceMs + limitMs - performance.now() : limitMs;
    if (leftMs > 0) {
      timer = setTimeout(expire, leftMs);
      return;
    }
    silent = true;
    call.abort();
  };
  let timer = setTimeout(expire, limits.firstMs);
  try {
    if (signal.aborted) return;
    for await (const message of open(call.signal)) {
      if (isFirst) {
        isFirst = false;
        clearTimeout(timer);
        timer = setTimeout(expire, limits.nextMs);
      }
      isTaken = false;
      yield message;
      if (signal.aborted) return;
      isTaken = true;
      sinceMs = performance.now();
    }
  } catch (error) {
    if (signal.aborted) return;
    throw silent ? new SilenceError(isFirst) : error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    call.abort();
  }
}
