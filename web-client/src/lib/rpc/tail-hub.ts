/**
 * One Tail for any number of subscriptions. When the set of streams changes, the call is made anew and goes
 * on exactly where it stood, by the position after the last line that was handed on of each stream; so
 * nobody loses or gets a line twice because somebody else came or went. It reconnects with growing waits.
 */
import { create } from "@bufbuild/protobuf";
import { Codec } from "../../gen/millstream/v1/block_pb";
import {
  GapSchema,
  TailRequestSchema,
  type StreamBlock,
  type StreamEnded,
  type TailRequest,
  type TailResponse,
} from "../../gen/millstream/v1/log_pb";
import { BlockError } from "../block/column";
import { nextSequenceOf, readBlock, type Lines } from "../block/lines";
import { lookThrough } from "../markers/likely";
import { Backoff, pause } from "./backoff";
import type { LogClient } from "./client";
import { describeFailure, SilenceError, StreamClosedError, type Failure } from "./failure";
import { Followed, OtherStoreError } from "./followed";
import { readOn } from "./polling";
import type { StreamingHealth } from "./streaming-health";
import type { Phase, TailHandle, TailListener, TailSource } from "./tail";
import { watched } from "./watchdog";

const CODECS = [Codec.NONE, Codec.ZSTD];

/** A quarter of the time that a screen shows one picture: what comes within it costs much less together. */
const BATCH_INTERVAL_MS = 4;

interface Member {
  readonly streams: readonly Followed[];
  readonly listener: TailListener;
  /** The history that it asked for was handed on. */
  isSettled: boolean;
  phase: Phase;
}

/** How the connection stands; each member's phase follows from it and from the member's own streams. */
type Connection =
  | { readonly kind: "opening"; readonly resumes: boolean }
  | { readonly kind: "open"; readonly resumes: boolean }
  | { readonly kind: "live" }
  | { readonly kind: "polling" }
  | { readonly kind: "waiting"; readonly atMs: number; readonly reason: string }
  | { readonly kind: "failed"; readonly reason: string };

export class TailHub implements TailSource {
  readonly #client: LogClient;
  readonly #health: StreamingHealth;
  readonly #streams = new Map<number, Followed>();
  readonly #members = new Set<Member>();
  readonly #backoff = new Backoff();
  #connection: Connection = { kind: "opening", resumes: false };
  #isRunning = false;
  /** The attempt that runs: aborted when the set of streams changes. */
  #attempt = new AbortController();
  #wake = new AbortController();
  /** Where the last call stood, and of which streams; of use for the same streams only. */
  #cursor: { readonly ids: string; readonly token: Uint8Array<ArrayBuffer> } | null = null;

  constructor(client: LogClient, health: StreamingHealth) {
    this.#client = client;
    this.#health = health;
    health.changed.add(() => this.#attempt.abort());
  }

  follow(streamIds: readonly number[], lastLines: number, listener: TailListener): TailHandle {
    let isNew = false;
    const streams = streamIds.map((id) => {
      const known = this.#streams.get(id);
      if (known !== undefined) return known;
      isNew = true;
      const followed = new Followed(id, lastLines);
      this.#streams.set(id, followed);
      return followed;
    });
    const member: Member = { streams, listener, isSettled: false, phase: { kind: "connecting" } };
    this.#members.add(member);
    listener.phase(member.phase);
    for (const followed of streams) {
      const stream = followed.joined;
      if (stream !== null) listener.stream(stream);
      if (followed.ended !== null) listener.ended(followed.ended);
    }
    // What it asked for is here already, or comes with what others wait for.
    if (!isNew) this.#settle([member]);
    else if (this.#connection.kind === "failed") this.#connection = { kind: "opening", resumes: true };
    if (isNew) this.#attempt.abort();
    this.#announce();
    this.#start();
    return { retryNow: () => this.retryNow(), close: () => this.#leave(member) };
  }

  /** Ends the wait for the next attempt. */
  retryNow(): void {
    this.#wake.abort();
  }

  #leave(member: Member): void {
    this.#members.delete(member);
    for (const followed of member.streams) {
      if ([...this.#members].some(({ streams }) => streams.includes(followed))) continue;
      this.#streams.delete(followed.streamId);
      this.#attempt.abort();
    }
  }

  #start(): void {
    if (!this.#isRunning) void this.#run();
  }

  /** Runs while there is a stream to follow. Never rejects. */
  async #run(): Promise<void> {
    this.#isRunning = true;
    await this.#attempts();
    this.#isRunning = false;
    // Somebody may have come in the last moment.
    if (this.#connection.kind !== "failed" && this.#open().length > 0) this.#start();
  }

  async #attempts(): Promise<void> {
    for (let open = this.#open(); open.length > 0; open = this.#open()) {
      const attempt = new AbortController();
      this.#attempt = attempt;
      try {
        await this.#meet(open, attempt.signal);
        if (attempt.signal.aborted) continue;
        const followed = open.filter((each) => each.isOpen);
        if (followed.length === 0) continue;
        if (this.#health.mode === "polling") await this.#poll(followed, attempt.signal);
        else await this.#tail(followed, attempt.signal);
        if (attempt.signal.aborted || this.#open().length === 0) continue;
        throw new StreamClosedError();
      } catch (error) {
        if (attempt.signal.aborted) continue;
        if (error instanceof SilenceError && (await this.#health.explainsSilence(error))) continue;
        if (error instanceof OtherStoreError) this.#forget();
        else if (!(await this.#recover(describeFailure(error), attempt.signal))) return;
      }
    }
  }

  #open(): Followed[] {
    return [...this.#streams.values()].filter((followed) => followed.isOpen);
  }

  /** Learns where new streams stand. One that the relay refuses does not keep the others from going on. */
  async #meet(streams: readonly Followed[], signal: AbortSignal): Promise<void> {
    const strangers = streams.filter((followed) => followed.position === null);
    await Promise.all(strangers.map((followed) => this.#ask(followed, signal)));
    this.#announce();
  }

  async #ask(followed: Followed, signal: AbortSignal): Promise<void> {
    try {
      const { stream } = await this.#client.read(
        { streamId: BigInt(followed.streamId), from: { case: "fromSequence", value: 0n }, maxLines: 1, codecs: CODECS },
        { signal },
      );
      if (stream === undefined) return;
      followed.learn(stream);
      for (const { listener } of this.#membersOf(followed)) listener.stream(stream);
    } catch (error) {
      if (signal.aborted) return;
      const failure = describeFailure(error);
      if (!failure.fatal) throw error;
      followed.failure = failure.message;
    }
  }

  async #tail(followed: readonly Followed[], signal: AbortSignal): Promise<void> {
    const ids = followed.map(({ streamId }) => streamId).join();
    const spacing = this.#health.spacing();
    const open = (call: AbortSignal): AsyncIterable<TailResponse> =>
      this.#client.tail(this.#request(followed, ids), { signal: call });
    for await (const { message } of watched(open, signal, this.#health.limits)) {
      this.#backoff.reset();
      if (this.#connection.kind === "opening") this.#connect({ kind: "open", resumes: this.#connection.resumes });
      else if (this.#connection.kind !== "open" && this.#connection.kind !== "live") this.#connect({ kind: "open", resumes: true });
      switch (message.case) {
        case "stream": {
          const stream = message.value;
          this.#streams.get(Number(stream.streamId))?.learn(stream);
          this.#tell(stream.streamId, ({ listener }) => listener.stream(stream));
          break;
        }
        case "block":
          this.#onBlock(message.value);
          break;
        case "gap": {
          const gap = message.value;
          this.#move(gap.streamId, Number(gap.nextSequence));
          this.#tell(gap.streamId, ({ listener }) => listener.gap(gap));
          break;
        }
        case "caughtUp":
          this.#cursor = { ids, token: message.value.cursor as Uint8Array<ArrayBuffer> };
          this.#settle(this.#members);
          this.#connect({ kind: "live" });
          break;
        case "heartbeat":
          this.#cursor = { ids, token: message.value.cursor as Uint8Array<ArrayBuffer> };
          spacing.heartbeat(message.value.serverUnixUs);
          for (const { listener } of this.#members) listener.heads(message.value.heads);
          break;
        case "streamEnded":
          this.#onEnded(message.value);
          // Nothing can follow any more: leave, and give the connection back.
          if (this.#open().length === 0) this.#attempt.abort();
          break;
        case undefined:
          break;
      }
    }
  }

  /** The same without a stream of messages: pages, read again and again. */
  async #poll(followed: readonly Followed[], signal: AbortSignal): Promise<void> {
    await readOn(this.#client, followed, signal, {
      block: (block) => this.#onBlock(block),
      gap: (gap) => {
        this.#move(gap.streamId, Number(gap.nextSequence));
        this.#tell(gap.streamId, ({ listener }) => listener.gap(gap));
      },
      ended: (ended) => this.#onEnded(ended),
      heads: (heads) => {
        for (const { listener } of this.#members) listener.heads(heads);
      },
      caughtUp: () => {
        this.#backoff.reset();
        this.#settle(this.#members);
        this.#connect({ kind: "polling" });
      },
    });
  }

  #onBlock(block: StreamBlock): void {
    const followed = this.#streams.get(Number(block.streamId));
    if (block.block === undefined || followed === undefined) return;
    const from = followed.position ?? 0;
    let lines: Lines;
    try {
      lines = readBlock(followed.streamId, block.block, { fromSequence: from });
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#skipBroken(block.streamId, from, nextSequenceOf(block.block), error);
      return;
    }
    if (lines.count === 0) return;
    lookThrough(lines);
    followed.position = lines.nextSequence;
    this.#tell(block.streamId, ({ listener }) => listener.lines(lines));
  }

  /** Says where lines are missing that came in a block which breaks the format, and goes on behind it: it is the matter of one stream. */
  #skipBroken(streamId: bigint, from: number, next: number, error: BlockError): void {
    if (next <= from) return;
    this.#move(streamId, next);
    const gap = create(GapSchema, { streamId, firstSequence: BigInt(from), nextSequence: BigInt(next), message: `the relay sent a broken block (${error.message})` });
    this.#tell(streamId, ({ listener }) => listener.gap(gap));
  }

  #onEnded(ended: StreamEnded): void {
    const followed = this.#streams.get(Number(ended.streamId));
    if (followed === undefined || followed.ended !== null) return;
    followed.ended = ended;
    this.#tell(ended.streamId, ({ listener }) => listener.ended(ended));
    this.#announce();
  }

  #request(followed: readonly Followed[], ids: string): TailRequest {
    return create(TailRequestSchema, {
      streamIds: followed.map(({ streamId }) => BigInt(streamId)),
      start:
        this.#cursor?.ids === ids ? { case: "cursor", value: this.#cursor.token } : { case: "fromNow", value: true },
      positions: followed.map(({ streamId, position }) => ({
        streamId: BigInt(streamId),
        nextSequence: BigInt(position ?? 0),
      })),
      follow: true,
      codecs: CODECS,
      batchIntervalMs: BATCH_INTERVAL_MS,
    });
  }

  /** After a failure: whether to go on. */
  async #recover(failure: Failure, signal: AbortSignal): Promise<boolean> {
    if (failure.otherStore) this.#forget();
    if (failure.fatal) {
      // One of the streams may be gone while the others are well.
      const open = this.#open();
      await Promise.all(open.map((followed) => this.#ask(followed, signal).catch(() => undefined)));
      if (open.every((followed) => followed.isOpen)) {
        this.#connect({ kind: "failed", reason: failure.message });
        return false;
      }
      this.#announce();
      return true;
    }
    const waitMs = (failure.retryAfterMs ?? 0) + this.#backoff.next();
    this.#connect({ kind: "waiting", atMs: Date.now() + waitMs, reason: failure.message });
    this.#wake = new AbortController();
    await pause(waitMs, this.#wake.signal, signal);
    this.#connect({ kind: "opening", resumes: true });
    return true;
  }

  #forget(): void {
    this.#cursor = null;
    for (const followed of this.#streams.values()) followed.forget();
    for (const member of this.#members) {
      member.isSettled = false;
      member.listener.reset();
    }
  }

  #move(streamId: bigint, nextSequence: number): void {
    const followed = this.#streams.get(Number(streamId));
    if (followed !== undefined) followed.position = Math.max(followed.position ?? 0, nextSequence);
  }

  #membersOf(followed: Followed): Member[] {
    return [...this.#members].filter(({ streams }) => streams.includes(followed));
  }

  #tell(streamId: bigint, say: (member: Member) => void): void {
    const id = Number(streamId);
    for (const member of this.#members) if (member.streams.some((each) => each.streamId === id)) say(member);
  }

  /** Members all of whose streams are followed and whose history was handed on. */
  #settle(members: Iterable<Member>): void {
    for (const member of members) {
      member.isSettled ||= member.streams.every((each) => !each.isOpen || each.position !== null);
    }
  }

  #connect(connection: Connection): void {
    this.#connection = connection;
    this.#announce();
  }

  #announce(): void {
    for (const member of this.#members) {
      const phase = this.#phaseOf(member);
      const before = member.phase;
      const isSame = phase.kind === before.kind && !("atMs" in phase && "atMs" in before && phase.atMs !== before.atMs);
      if (isSame) continue;
      member.phase = phase;
      member.listener.phase(phase);
    }
  }

  #phaseOf({ streams, isSettled }: Member): Phase {
    if (streams.length > 0 && streams.every((each) => !each.isOpen)) {
      const failed = streams.every((each) => each.failure !== null) ? streams[0]?.failure : null;
      return failed ? { kind: "failed", reason: failed } : { kind: "ended" };
    }
    const connection = this.#connection;
    switch (connection.kind) {
      case "failed":
        return { kind: "failed", reason: connection.reason };
      case "waiting":
        return { kind: "reconnecting", atMs: connection.atMs, reason: connection.reason };
      case "polling":
        return { kind: isSettled ? "polling" : "catching-up" };
      case "live":
        return { kind: isSettled ? "live" : "catching-up" };
      default:
        if (isSettled) return { kind: connection.resumes ? "resuming" : "live" };
        return { kind: connection.kind === "open" ? "catching-up" : "connecting" };
    }
  }
}
