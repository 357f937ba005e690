/** Blocks and lines for tests, made as an agent makes them. */
import { create } from "@bufbuild/protobuf";
import { BlockSchema, Channel, Codec, LineFlag, type Block } from "../../gen/millstream/v1/block_pb";
import { Severity } from "../../gen/millstream/v1/log_pb";
import { linesOf, type Line } from "../block/lines";

export interface TestLine {
  text: string | Uint8Array;
  timeUs?: number;
  channel?: Channel;
  partial?: boolean;
  severity?: Severity;
}

export function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  bytes.push(value);
  return bytes;
}

/** A block of one run a line: as valid as one with long runs. */
export function blockOf(firstSequence: number, lines: readonly (TestLine | string)[], extra: Partial<Block> = {}): Block {
  const all = lines.map((line) => (typeof line === "string" ? { text: line } : line));
  const encoder = new TextEncoder();
  const text = all.flatMap(({ text }) => [...(typeof text === "string" ? encoder.encode(text) : text), 10]);
  const firstTime = all[0]?.timeUs ?? 0;
  let before = firstTime;
  const times = all.flatMap(({ timeUs }) => {
    const delta = (timeUs ?? before) - before;
    before += delta;
    return [...varint(delta < 0 ? -delta * 2 - 1 : delta * 2), 1];
  });
  const block = create(BlockSchema, {
    firstSequence: BigInt(firstSequence),
    lineCount: all.length,
    textBytes: text.length,
    codec: Codec.NONE,
    text: new Uint8Array(text),
    firstTimeUnixUs: BigInt(firstTime),
    times: new Uint8Array(times),
    channels: new Uint8Array(all.flatMap(({ channel }) => [channel ?? Channel.STDOUT, 1])),
    flags: new Uint8Array(all.flatMap(({ partial }) => [partial ? LineFlag.PARTIAL : 0, 1])),
    severities: new Uint8Array(all.flatMap(({ severity }) => [severity ?? Severity.UNSPECIFIED, 1])),
  });
  return Object.assign(block, extra);
}

export function testLines(streamId: number, firstSequence: number, lines: readonly (TestLine | string)[]): Line[] {
  return linesOf(streamId, blockOf(firstSequence, lines));
}

export function textOf(line: Line): string {
  return new TextDecoder().decode(line.source.subarray(line.start, line.end));
}
