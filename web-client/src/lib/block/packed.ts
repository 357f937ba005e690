/**
 * Lines on their way from the hub to a tab: one buffer, which is moved and not copied. A message of many small arrays
 * costs the page more than the lines in it: each is an object of the browser's, which its collector has to find again.
 */
import { Lines } from "./lines";

/** Columns first, the widest ones in front, so that each begins where numbers of its width may. */
const SEQUENCE_BYTES = 8;
const TIME_BYTES = 8;
const END_BYTES = 4;
const MARK_BYTES = 1;
const LINE_BYTES = SEQUENCE_BYTES + TIME_BYTES + END_BYTES + MARK_BYTES;

export interface PackedLines {
  readonly streamId: number;
  readonly count: number;
  readonly buffer: ArrayBuffer;
}

/** Bytes that lines have when they are packed. */
export function packedBytes(lines: Lines): number {
  return lines.count * LINE_BYTES + lines.text.length;
}

/** Packs lines of one stream that follow each other. */
export function pack(parts: readonly Lines[]): PackedLines {
  const count = parts.reduce((sum, { count }) => sum + count, 0);
  const buffer = new ArrayBuffer(parts.reduce((sum, part) => sum + packedBytes(part), 0));
  const { sequences, times, ends, marks, text } = columnsOf(buffer, count);
  let line = 0;
  let byte = 0;
  for (const part of parts) {
    sequences.set(part.sequences, line);
    times.set(part.times, line);
    marks.set(part.marks, line);
    for (const end of part.ends) ends[line++] = end - part.textStart + byte;
    text.set(part.text, byte);
    byte += part.text.length;
  }
  return { streamId: parts[0]?.streamId ?? 0, count, buffer };
}

/** The lines that `pack` packed. */
export function unpackLines({ streamId, count, buffer }: PackedLines): Lines {
  const { sequences, times, ends, marks, text } = columnsOf(buffer, count);
  return new Lines(streamId, text, 0, ends, sequences, times, marks);
}

function columnsOf(buffer: ArrayBuffer, count: number): { sequences: Float64Array; times: Float64Array; ends: Uint32Array; marks: Uint8Array; text: Uint8Array } {
  const times = count * SEQUENCE_BYTES;
  const ends = times + count * TIME_BYTES;
  const marks = ends + count * END_BYTES;
  return {
    sequences: new Float64Array(buffer, 0, count),
    times: new Float64Array(buffer, times, count),
    ends: new Uint32Array(buffer, ends, count),
    marks: new Uint8Array(buffer, marks, count),
    text: new Uint8Array(buffer, marks + count * MARK_BYTES),
  };
}
