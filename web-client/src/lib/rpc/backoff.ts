/** Waits between attempts to reconnect: they double, are capped, and are spread by chance. */

const FIRST_MS = 500;
const CAP_MS = 15_000;

export class Backoff {
  #attempts = 0;
  readonly #random: () => number;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** Milliseconds to wait before the next attempt: half fixed, half by chance, so that tabs do not return as one. */
  next(): number {
    const ceiling = Math.min(CAP_MS, FIRST_MS * 2 ** this.#attempts);
    this.#attempts = Math.min(this.#attempts + 1, 10);
    return Math.round(ceiling / 2 + (ceiling / 2) * this.#random());
  }

  /** The last attempt worked. */
  reset(): void {
    this.#attempts = 0;
  }
}

/** Resolves after the time, or at once when one of the signals aborts. */
export function pause(milliseconds: number, ...signals: readonly AbortSignal[]): Promise<void> {
  return new Promise((resolve) => {
    if (signals.some((signal) => signal.aborted)) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      for (const signal of signals) signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    for (const signal of signals) signal.addEventListener("abort", done);
  });
}
