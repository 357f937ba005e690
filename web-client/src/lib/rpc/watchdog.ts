/** Tells a quiet stream from a dead one: the relay sends a heartbeat every 10 seconds. */
import { SilenceError } from "./failure";

/** Silence after which a stream is taken for dead, milliseconds. */
export const SILENCE_LIMIT_MS = 25_000;

/**
 * The messages of `open`'s stream. Throws SilenceError, and aborts the call, when none comes for
 * `limitMs`; ends without an error when `signal` aborts.
 */
export async function* watched<T>(
  open: (signal: AbortSignal) => AsyncIterable<T>,
  signal: AbortSignal,
  limitMs = SILENCE_LIMIT_MS,
): AsyncGenerator<T> {
  const call = new AbortController();
  const stop = (): void => call.abort();
  let silent = false;
  const expire = (): void => {
    silent = true;
    call.abort();
  };
  signal.addEventListener("abort", stop);
  let timer = setTimeout(expire, limitMs);
  try {
    if (signal.aborted) return;
    for await (const message of open(call.signal)) {
      clearTimeout(timer);
      yield message;
      if (signal.aborted) return;
      timer = setTimeout(expire, limitMs);
    }
  } catch (error) {
    if (signal.aborted) return;
    throw silent ? new SilenceError() : error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    call.abort();
  }
}
