/**
 * From a block on the wire to lines. Text stays bytes and is shared with the block; only what is painted
 * is ever decoded.
 */
import { Codec, LineFlag, type Block, type Channel } from "../../gen/millstream/v1/block_pb";
import { Severity } from "../../gen/millstream/v1/log_pb";
import { BlockError, ColumnReader, unzigzag } from "./column";
import { unpack } from "./zstd";

/** Largest uncompressed text of a block, bytes (block.proto). */
export const MAX_BLOCK_TEXT_BYTES = 1_048_576;

const NEWLINE = 0x0a;

/** One line of a stream. `source` from `start` to `end` is its text, without terminator. */
export interface Line {
  readonly streamId: number;
  readonly sequence: number;
  /** Capture time, microseconds since the Unix epoch. */
  readonly timeUs: number;
  readonly channel: Channel;
  /** No newline was read after this text. */
  readonly partial: boolean;
  /** As its agent determined it; mostly UNSPECIFIED: nobody said. */
  readonly severity: Severity;
  readonly source: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** Which lines of a block are wanted. */
export interface LineRange {
  /** Lines below it are skipped. */
  fromSequence?: number;
  /** Only this many of the last lines are made. */
  lastLines?: number;
}

/**
 * The lines of a block in order. Throws BlockError when the block breaks the format.
 */
export function linesOf(streamId: number, block: Block, range: LineRange = {}): Line[] {
  const text = textOf(block);
  const times = new ColumnReader(block.times, "times");
  const channels = new ColumnReader(block.channels, "channels");
  const flags = new ColumnReader(block.flags, "flags");
  const severities = new ColumnReader(block.severities, "severities");
  const sequences = new ColumnReader(block.sequences, "sequences", 1);
  const dense = block.sequences.length === 0;
  const fromSequence = range.fromSequence ?? 0;
  const fromIndex = Math.max(0, block.lineCount - (range.lastLines ?? Infinity));

  const lines: Line[] = [];
  let timeUs = Number(block.firstTimeUnixUs);
  let sequence = Number(block.firstSequence);
  let start = 0;
  for (let index = 0; index < block.lineCount; index += 1) {
    const end = text.indexOf(NEWLINE, start);
    if (end < 0) throw new BlockError(`text holds ${index} lines, the header says ${block.lineCount}`);
    timeUs += unzigzag(times.next());
    const step = sequences.next();
    if (index > 0 || !dense) sequence += step;
    const channel = channels.next() as Channel;
    const partial = (flags.next() & LineFlag.PARTIAL) !== 0;
    const said = severities.next();
    const severity = said in Severity ? (said as Severity) : Severity.UNSPECIFIED;
    if (index >= fromIndex && sequence >= fromSequence) {
      lines.push({ streamId, sequence, timeUs, channel, partial, severity, source: text, start, end });
    }
    start = end + 1;
  }
  if (start !== text.length) throw new BlockError(`text goes on after line ${block.lineCount}`);
  for (const column of [times, channels, flags, severities, sequences]) column.finish();
  return lines;
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
