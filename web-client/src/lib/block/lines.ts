/**
 * From a block on the wire to lines. Text stays bytes and is shared with the block, and what else is known of the lines
 * stays in columns; a line is a place in them. Tens of thousands come in a second, of which a few hundred are painted:
 * only these are ever decoded.
 */
import { Channel, Codec, LineFlag, type Block } from "../../gen/millstream/v1/block_pb";
import { Severity } from "../../gen/millstream/v1/log_pb";
import { BlockError, ColumnReader, unzigzag } from "./column";
import { unpack } from "./zstd";

/** Largest uncompressed text of a block, bytes (block.proto). */
export const MAX_BLOCK_TEXT_BYTES = 1_048_576;

const NEWLINE = 0x0a;

/** What is known of a line in one byte: its channel, its severity, and these. */
const CHANNEL_BITS = 0b0000_0011;
const SEVERITY_SHIFT = 2;
const SEVERITY_BITS = 0b0001_1100;
const PARTIAL = 0b0010_0000;
const IS_INTERESTING = 0b0100_0000;

/** Consecutive lines of one stream. */
export class Lines {
  readonly streamId: number;
  /** Text of the first line from `textStart` on, of the others behind the newline of the one before. */
  readonly source: Uint8Array;
  readonly textStart: number;
  /** Of each line, the place of its newline in `source`. */
  readonly ends: Uint32Array;
  readonly sequences: Float64Array;
  /** Capture times, microseconds since the Unix epoch. */
  readonly times: Float64Array;
  /** Made by `markOf`. */
  readonly marks: Uint8Array;

  constructor(streamId: number, source: Uint8Array, textStart: number, ends: Uint32Array, sequences: Float64Array, times: Float64Array, marks: Uint8Array) {
    this.streamId = streamId;
    this.source = source;
    this.textStart = textStart;
    this.ends = ends;
    this.sequences = sequences;
    this.times = times;
    this.marks = marks;
  }

  get count(): number {
    return this.ends.length;
  }

  /** Sequence after the last line. */
  get nextSequence(): number {
    return (this.sequences.at(-1) ?? -1) + 1;
  }

  /** The text of all lines, each with its newline. */
  get text(): Uint8Array {
    return this.source.subarray(this.textStart, (this.ends.at(-1) ?? this.textStart - 1) + 1);
  }

  /** Some of them, one by one. */
  slice(from = 0, to = this.count): Line[] {
    const lines: Line[] = [];
    for (let index = from; index < to; index += 1) lines.push(new Line(this, index));
    return lines;
  }

  severityAt(index: number): Severity {
    return ((this.marks[index] ?? 0) & SEVERITY_BITS) >> SEVERITY_SHIFT;
  }

  /** Remembers that a line may be more than text: see `interesting`. */
  markInteresting(index: number): void {
    this.marks[index] = (this.marks[index] ?? 0) | IS_INTERESTING;
  }

  /** The lines that may be a marker or an error, once they were looked through (`markers/likely.ts`). */
  *interesting(): Generator<Line> {
    for (let index = 0; index < this.marks.length; index += 1) {
      if (((this.marks[index] ?? 0) & IS_INTERESTING) !== 0) yield new Line(this, index);
    }
  }
}

/** One line of a stream. `source` from `start` to `end` is its text, without terminator. */
export class Line {
  readonly #of: Lines;
  readonly #index: number;

  constructor(of: Lines, index: number) {
    this.#of = of;
    this.#index = index;
  }

  get streamId(): number {
    return this.#of.streamId;
  }

  get sequence(): number {
    return this.#of.sequences[this.#index] ?? 0;
  }

  /** Capture time, microseconds since the Unix epoch. */
  get timeUs(): number {
    return this.#of.times[this.#index] ?? 0;
  }

  get channel(): Channel {
    return this.#mark & CHANNEL_BITS;
  }

  /** No newline was read after this text. */
  get partial(): boolean {
    return (this.#mark & PARTIAL) !== 0;
  }

  /** As its agent determined it; mostly UNSPECIFIED: nobody said. */
  get severity(): Severity {
    return this.#of.severityAt(this.#index);
  }

  get source(): Uint8Array {
    return this.#of.source;
  }

  get start(): number {
    return this.#index === 0 ? this.#of.textStart : (this.#of.ends[this.#index - 1] ?? 0) + 1;
  }

  get end(): number {
    return this.#of.ends[this.#index] ?? 0;
  }

  get #mark(): number {
    return this.#of.marks[this.#index] ?? 0;
  }
}

/** Which lines of a block are wanted. */
export interface LineRange {
  /** Lines below it are skipped. */
  fromSequence?: number;
}

/** The lines of a block in order, one by one. Throws BlockError when the block breaks the format. */
export function linesOf(streamId: number, block: Block, range: LineRange = {}): Line[] {
  return readBlock(streamId, block, range).slice();
}

/** The lines of a block. Throws BlockError when the block breaks the format. */
export function readBlock(streamId: number, block: Block, { fromSequence = 0 }: LineRange = {}): Lines {
  const text = textOf(block);
  const times = new ColumnReader(block.times, "times");
  const channels = new ColumnReader(block.channels, "channels");
  const flags = new ColumnReader(block.flags, "flags");
  const severities = new ColumnReader(block.severities, "severities");
  const sequences = new ColumnReader(block.sequences, "sequences", 1);
  const dense = block.sequences.length === 0;

  // No line is without its newline, and the text is bounded.
  const count = block.lineCount;
  const made = {
    ends: new Uint32Array(count),
    sequences: new Float64Array(count),
    times: new Float64Array(count),
    marks: new Uint8Array(count),
  };
  let timeUs = Number(block.firstTimeUnixUs);
  let sequence = Number(block.firstSequence);
  let start = 0;
  /** Lines that are not wanted; sequences only grow. */
  let skipped = 0;
  let textStart = 0;
  for (let index = 0; index < count; index += 1) {
    const end = text.indexOf(NEWLINE, start);
    if (end < 0) throw new BlockError(`text holds ${index} lines, the header says ${count}`);
    timeUs += unzigzag(times.next());
    const step = sequences.next();
    if (index > 0 || !dense) sequence += step;
    made.ends[index] = end;
    made.sequences[index] = sequence;
    made.times[index] = timeUs;
    made.marks[index] = markOf(channels.next(), flags.next(), severities.next());
    start = end + 1;
    if (sequence >= fromSequence) continue;
    skipped = index + 1;
    textStart = start;
  }
  if (start !== text.length) throw new BlockError(`text goes on after line ${count}`);
  for (const column of [times, channels, flags, severities, sequences]) column.finish();
  return new Lines(
    streamId,
    text,
    textStart,
    made.ends.subarray(skipped),
    made.sequences.subarray(skipped),
    made.times.subarray(skipped),
    made.marks.subarray(skipped),
  );
}

function markOf(channel: number, flags: number, severity: number): number {
  const known = severity in Severity ? severity : Severity.UNSPECIFIED;
  return (channel in Channel ? channel : Channel.STDOUT) | (known << SEVERITY_SHIFT) | ((flags & LineFlag.PARTIAL) !== 0 ? PARTIAL : 0);
}

/** Sequence after the last line of a block without a filter. */
export function nextSequenceOf(block: Block): number {
  return Number(block.firstSequence) + block.lineCount;
}

function textOf(block: Block): Uint8Array {
  if (block.lineCount === 0) throw new BlockError("a block without lines");
  if (block.textBytes > MAX_BLOCK_TEXT_BYTES || block.textBytes < block.lineCount) {
    throw new BlockError(`a block of ${block.textBytes} bytes of text in ${block.lineCount} lines`);
  }
  switch (block.codec) {
    case Codec.NONE:
      if (block.text.length !== block.textBytes) throw new BlockError("text is not as long as its header says");
      return block.text;
    case Codec.ZSTD:
      return unpack(block.text, block.textBytes);
    default:
      throw new BlockError(`codec ${String(block.codec)} is not known`);
  }
}
