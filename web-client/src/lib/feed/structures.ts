/** The structure of every stream of a feed: searched one after the other, again when lines were skipped. */
import { Code, ConnectError } from "@connectrpc/connect";
import type { Lines } from "../block/lines";
import { pause } from "../rpc/backoff";
import type { LogClient } from "../rpc/client";
import { Structure } from "./structure";

/** The relay runs a bounded number of searches; waits between attempts, milliseconds. */
const BUSY_WAITS_MS = [250, 500, 1_000, 2_000, 4_000, 8_000];

export class Structures {
  readonly #client: LogClient;
  readonly #signal: AbortSignal;
  readonly #found: (streamId: number) => void;
  #all = new Map<number, Structure>();
  #queue: number[] = [];
  #isRunning = false;

  /** `found` is told of each stream whose whole structure is known for the first time. */
  constructor(client: LogClient, streamIds: readonly number[], signal: AbortSignal, found: (streamId: number) => void) {
    this.#client = client;
    this.#signal = signal;
    this.#found = found;
    this.reset(streamIds);
  }

  of(streamId: number): Structure {
    let structure = this.#all.get(streamId);
    if (structure === undefined) {
      structure = new Structure();
      this.#all.set(streamId, structure);
    }
    return structure;
  }

  /** Forgets everything: the relay has another store. */
  reset(streamIds: readonly number[]): void {
    this.#all = new Map(streamIds.map((id) => [id, new Structure()]));
  }

  arrived(lines: Lines): void {
    this.of(lines.streamId).arrived(lines);
  }

  /** Has these streams looked through. */
  search(streamIds: Iterable<number>): void {
    for (const id of streamIds) if (!this.#queue.includes(id)) this.#queue.push(id);
    if (!this.#isRunning) void this.#run();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    for (let id = this.#queue.shift(); id !== undefined && !this.#signal.aborted; id = this.#queue.shift()) {
      const structure = this.of(id);
      for (const waitMs of [...BUSY_WAITS_MS, null]) {
        try {
          await structure.search(this.#client, id, this.#signal);
          this.#found(id);
          break;
        } catch (error) {
          // Without a search the log is shown as it is, with the groups of the lines that arrive.
          if (this.#signal.aborted) break;
          if (waitMs === null || ConnectError.from(error).code !== Code.ResourceExhausted) {
            structure.goOn();
            this.#found(id);
            break;
          }
          await pause(waitMs, this.#signal);
        }
      }
    }
    this.#isRunning = false;
  }
}
