/**
 * Whether messages of an open call arrive when they are sent. Some proxies hold a response back until it
 * is large or over; then lines are read by pages instead, and the stream is tried again from time to time.
 */
import { pause } from "./backoff";
import type { LogClient } from "./client";
import type { SilenceError } from "./failure";
import { DEFAULT_LIMITS, watched, type Limits } from "./watchdog";

export type StreamingMode = "streaming" | "polling";

export interface HealthOptions {
  readonly limits: Limits;
  /** Longest time that an answer to a plain call may take to count as prompt, milliseconds. */
  readonly promptMs: number;
  /** Time between trials while lines are read by pages, milliseconds: doubled up to the cap. */
  readonly trialMs: number;
  readonly trialCapMs: number;
}

export const DEFAULT_OPTIONS: HealthOptions = { limits: DEFAULT_LIMITS, promptMs: 3_000, trialMs: 20_000, trialCapMs: 300_000 };

/** Difference between when two heartbeats were sent and when they came that cannot be chance, milliseconds. */
const BUNCH_MS = 6_000;

/** Selects no stream, so that the answer is nothing but heartbeats. */
const NOTHING = "host=nothing.millstream.invalid";

/** Watches the spacing of one call's heartbeats. */
export class Spacing {
  readonly #bunched: () => void;
  #last: { readonly sentMs: number; readonly cameMs: number } | null = null;

  constructor(bunched: () => void) {
    this.#bunched = bunched;
  }

  heartbeat(serverUnixUs: bigint, nowMs: number = Date.now()): void {
    const sentMs = Number(serverUnixUs) / 1_000;
    const last = this.#last;
    this.#last = { sentMs, cameMs: nowMs };
    if (last !== null && sentMs - last.sentMs - (nowMs - last.cameMs) > BUNCH_MS) this.#bunched();
  }
}

export class StreamingHealth {
  readonly changed = new Set<(mode: StreamingMode) => void>();
  readonly limits: Limits;
  readonly #client: LogClient;
  readonly #options: HealthOptions;
  readonly #stop = new AbortController();
  #mode: StreamingMode = "streaming";
  #isTrying = false;

  constructor(client: LogClient, options: HealthOptions = DEFAULT_OPTIONS) {
    this.#client = client;
    this.#options = options;
    this.limits = options.limits;
  }

  get mode(): StreamingMode {
    return this.#mode;
  }

  /**
   * For the heartbeats of one call. A bunch of them may come from a proxy, or from a computer that slept: a
   * trial tells.
   */
  spacing(): Spacing {
    return new Spacing(() => void this.#suspect());
  }

  /** A call was silent: true when plain calls are answered at once, so that it is the stream that is held back. */
  async explainsSilence(silence: SilenceError): Promise<boolean> {
    if (this.#mode === "polling") return true;
    if (!silence.isFromBeginning && (await this.#trial())) return false;
    if (!(await this.#isPrompt())) return false;
    this.#fallBack();
    return true;
  }

  close(): void {
    this.#stop.abort();
  }

  async #suspect(): Promise<void> {
    if (this.#mode === "polling" || this.#isTrying) return;
    this.#isTrying = true;
    const streams = await this.#trial();
    this.#isTrying = false;
    if (!streams && (await this.#isPrompt())) this.#fallBack();
  }

  #fallBack(): void {
    if (this.#mode === "polling" || this.#stop.signal.aborted) return;
    this.#set("polling");
    void this.#tryAgain();
  }

  async #tryAgain(): Promise<void> {
    for (let waitMs = this.#options.trialMs; ; waitMs = Math.min(2 * waitMs, this.#options.trialCapMs)) {
      await pause(waitMs, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      if (await this.#trial()) break;
    }
    if (!this.#stop.signal.aborted) this.#set("streaming");
  }

  /** Whether a call's heartbeats come one by one: the first at once, the second about when it is sent. */
  async #trial(): Promise<boolean> {
    const call = new AbortController();
    const stop = (): void => call.abort();
    this.#stop.signal.addEventListener("abort", stop);
    let isBunched = false;
    let count = 0;
    const spacing = new Spacing(() => (isBunched = true));
    const open = (inner: AbortSignal) =>
      this.#client.tail({ selector: NOTHING, start: { case: "fromNow", value: true }, follow: true }, { signal: inner });
    try {
      for await (const { message } of watched(open, call.signal, this.limits)) {
        if (message.case !== "heartbeat") continue;
        spacing.heartbeat(message.value.serverUnixUs);
        count += 1;
        // Not `break`, which would wait for the message after.
        if (count === 2 || isBunched) call.abort();
      }
    } catch {
      return false;
    } finally {
      this.#stop.signal.removeEventListener("abort", stop);
    }
    return count >= 2 && !isBunched;
  }

  async #isPrompt(): Promise<boolean> {
    try {
      await this.#client.listAgents({ pageSize: 1 }, { signal: this.#stop.signal, timeoutMs: this.#options.promptMs });
      return true;
    } catch {
      return false;
    }
  }

  #set(mode: StreamingMode): void {
    this.#mode = mode;
    for (const tell of this.changed) tell(mode);
  }
}
