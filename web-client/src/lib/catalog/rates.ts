/** How many lines each stream got in each of the last seconds, as far as this page has watched. */

/** Length of one sample, milliseconds, and how many are kept of a stream. */
const SAMPLE_MS = 2_000;
export const SAMPLES = 30;

interface Growth {
  /** Lines when the sample before the first one ended. */
  head: number;
  /** Number of the newest sample, counted from the epoch. */
  newest: number;
  /** Lines of the last samples, the newest last. */
  samples: number[];
  /** When it was seen to grow, by this page's clock; null when it was not yet. */
  grewMs: number | null;
}

export class Rates {
  readonly #growth = new Map<number, Growth>();

  /** The stream has so many lines now. */
  note(streamId: number, head: number, nowMs: number): void {
    const now = Math.floor(nowMs / SAMPLE_MS);
    const growth = this.#growth.get(streamId);
    if (growth === undefined) {
      this.#growth.set(streamId, { head, newest: now, samples: [0], grewMs: null });
      return;
    }
    advance(growth, now);
    const last = growth.samples.length - 1;
    growth.samples[last] = (growth.samples[last] ?? 0) + Math.max(0, head - growth.head);
    if (head > growth.head) growth.grewMs = nowMs;
    growth.head = head;
  }

  /** When this page last saw the stream grow, milliseconds since the Unix epoch; null when it has not. */
  grewMs(streamId: number): number | null {
    return this.#growth.get(streamId)?.grewMs ?? null;
  }

  forget(streamId: number): void {
    this.#growth.delete(streamId);
  }

  /** Lines a second in each sample, oldest first; empty for a stream that did not grow. */
  of(streamId: number, nowMs: number): number[] {
    const growth = this.#growth.get(streamId);
    if (growth === undefined) return [];
    advance(growth, Math.floor(nowMs / SAMPLE_MS));
    if (growth.samples.every((lines) => lines === 0)) return [];
    return growth.samples.map((lines) => (lines * 1_000) / SAMPLE_MS);
  }

  /** Lines a second over the last few samples. */
  now(streamId: number, nowMs: number): number {
    const recent = this.of(streamId, nowMs).slice(-4, -1);
    return recent.length === 0 ? 0 : recent.reduce((sum, rate) => sum + rate, 0) / recent.length;
  }
}

/** Begins new samples for the time that has passed. */
function advance(growth: Growth, now: number): void {
  const missing = Math.min(SAMPLES, now - growth.newest);
  for (let at = 0; at < missing; at += 1) growth.samples.push(0);
  if (growth.samples.length > SAMPLES) growth.samples.splice(0, growth.samples.length - SAMPLES);
  growth.newest = Math.max(growth.newest, now);
}
