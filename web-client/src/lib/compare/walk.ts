/**
 * A reader's way through a comparison: from difference to difference, with a bounded number of rows around
 * the one that is in view.
 */
import { describeFailure } from "../rpc/failure";
import { isDifference, type Comparison, type ComparedRow } from "./comparison";

/** Rows that are held at most; the oldest go. */
const MAX_ROWS = 6_000;

/** Rows that are read beyond a difference, so that it is seen in its place. */
const CONTEXT_ROWS = 300;

export class ComparisonWalk {
  readonly #comparison: Comparison;
  readonly #changed: () => void;
  #rows: ComparedRow[] = [];
  /** Rows before the ones that are held. */
  #dropped = 0;
  /** Index of the difference that the reader is at; -1: none yet. */
  #at = -1;
  /** Which difference that is, counted from 1; 0: none yet. */
  #ordinal = 0;
  #differences = 0;
  #isDone = false;
  #isReading = false;
  #isClosed = false;
  #problem: string | null = null;

  /** `changed` is called after every change: paint on the next frame. */
  constructor(comparison: Comparison, changed: () => void) {
    this.#comparison = comparison;
    this.#changed = changed;
  }

  get rows(): readonly ComparedRow[] {
    return this.#rows;
  }

  /** Rows before the first one that is held. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Index of the row that the reader is at; -1 when no difference has been found. */
  get at(): number {
    return this.#at;
  }

  get ordinal(): number {
    return this.#ordinal;
  }

  /** Runs of different lines that were found so far. */
  get differences(): number {
    return this.#differences;
  }

  /** Both runs were read to their ends. */
  get isDone(): boolean {
    return this.#isDone;
  }

  get isReading(): boolean {
    return this.#isReading;
  }

  get linesRead(): number {
    return this.#comparison.linesRead;
  }

  get problem(): string | null {
    return this.#problem;
  }

  /** Goes to the next difference, reading as far as need be. */
  async toNext(): Promise<void> {
    if (this.#isReading) return;
    for (let from = this.#at + 1; ; ) {
      const found = this.#begin(from);
      if (found >= 0) {
        this.#at = found;
        this.#ordinal += 1;
        break;
      }
      const base = this.#dropped;
      from = this.#rows.length;
      if (!(await this.#read())) break;
      from = Math.max(0, from - (this.#dropped - base));
    }
    this.#changed();
    while (this.#at >= 0 && this.#rows.length - this.#at < CONTEXT_ROWS && (await this.#read()));
  }

  /** Goes back to the difference before, as far as it is held. */
  toPrevious(): void {
    for (let index = this.#at - 1; index >= 0; index -= 1) {
      if (!this.#isBegin(index)) continue;
      this.#at = index;
      this.#ordinal -= 1;
      break;
    }
    this.#changed();
  }

  /** Reads on without going anywhere; false at the end. */
  async readOn(): Promise<boolean> {
    return !this.#isReading && (await this.#read());
  }

  close(): void {
    this.#isClosed = true;
  }

  #begin(from: number): number {
    for (let index = from; index < this.#rows.length; index += 1) if (this.#isBegin(index)) return index;
    return -1;
  }

  #isBegin(index: number): boolean {
    const row = this.#rows[index];
    const before = this.#rows[index - 1];
    return row !== undefined && isDifference(row) && (before === undefined || !isDifference(before));
  }

  async #read(): Promise<boolean> {
    if (this.#isDone || this.#isClosed || this.#problem !== null) return false;
    this.#isReading = true;
    this.#changed();
    try {
      const rows = await this.#comparison.next();
      if (rows === null) this.#isDone = true;
      else this.#add(rows);
    } catch (error) {
      this.#problem = describeFailure(error).message;
    }
    this.#isReading = false;
    if (!this.#isClosed) this.#changed();
    return !this.#isDone && this.#problem === null;
  }

  #add(rows: readonly ComparedRow[]): void {
    let before = this.#rows.at(-1);
    for (const row of rows) {
      if (isDifference(row) && (before === undefined || !isDifference(before))) this.#differences += 1;
      before = row;
    }
    this.#rows = this.#rows.concat(rows);
    const excess = this.#rows.length - MAX_ROWS;
    if (excess <= 0) return;
    this.#rows = this.#rows.slice(excess);
    this.#dropped += excess;
    this.#at = Math.max(-1, this.#at - excess);
  }
}
