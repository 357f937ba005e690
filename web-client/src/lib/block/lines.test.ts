import { execFileSync } from "node:child_process";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Channel, Codec } from "../../gen/millstream/v1/block_pb";
import { Severity } from "../../gen/millstream/v1/log_pb";
import { blockOf, testLines, textOf, varint, type TestLine } from "../testing/blocks";
import { BlockError } from "./column";
import { linesOf, readBlock } from "./lines";
import { pack, packedBytes, unpackLines } from "./packed";

/** Any line that an agent may send. */
const line = fc.record({
  text: fc.uint8Array({ maxLength: 40 }).map((bytes) => bytes.map((byte) => (byte === 10 ? 32 : byte))),
  timeUs: fc.integer({ min: 1_700_000_000_000_000, max: 1_900_000_000_000_000 }),
  channel: fc.constantFrom(Channel.STDOUT, Channel.STDERR, Channel.NOTICE),
  partial: fc.boolean(),
  severity: fc.constantFrom(Severity.UNSPECIFIED, Severity.NONE, Severity.WARNING, Severity.ERROR),
});

describe("linesOf", () => {
  test("gives every line as it was put in", () => {
    fc.assert(
      fc.property(fc.array(line, { minLength: 1, maxLength: 30 }), fc.nat(2 ** 40), (lines, first) => {
        const made = testLines(1, first, lines as TestLine[]);
        expect(made.map((each) => each.sequence)).toEqual(lines.map((_, at) => first + at));
        expect(made.map((each) => [...each.source.subarray(each.start, each.end)])).toEqual(lines.map((each) => [...each.text]));
        expect(made.map((each) => [each.timeUs, each.channel, each.partial, each.severity])).toEqual(
          lines.map((each) => [each.timeUs, each.channel, each.partial, each.severity]),
        );
      }),
    );
  });

  test("reads the defaults of empty columns", () => {
    const none = new Uint8Array();
    const block = blockOf(5, ["a", "b"], { times: none, channels: none, flags: none, firstTimeUnixUs: 9n });
    expect(linesOf(1, block).map(({ sequence, timeUs, channel, partial }) => [sequence, timeUs, channel, partial])).toEqual([
      [5, 9, Channel.STDOUT, false],
      [6, 9, Channel.STDOUT, false],
    ]);
  });

  test("takes a severity that it does not know for one that nobody said", () => {
    const block = blockOf(0, ["a", "b"], { severities: new Uint8Array([9, 1, Severity.ERROR, 1]) });
    expect(linesOf(1, block).map(({ severity }) => severity)).toEqual([Severity.UNSPECIFIED, Severity.ERROR]);
    expect(linesOf(1, blockOf(0, ["a"], { severities: new Uint8Array() }))[0]?.severity).toBe(Severity.UNSPECIFIED);
  });

  test("reads each line's own sequence in a filtered block", () => {
    const block = blockOf(100, ["a", "b", "c"], { sequences: new Uint8Array([0, 1, ...varint(7), 1, 1, 1]) });
    expect(linesOf(1, block).map((line) => line.sequence)).toEqual([100, 107, 108]);
  });

  test("skips what is not wanted", () => {
    const block = blockOf(10, ["a", "b", "c", "d"]);
    expect(linesOf(1, block, { fromSequence: 12 }).map(textOf)).toEqual(["c", "d"]);
  });

  test.runIf(hasZstd())("unpacks what the zstd of others packed", () => {
    const plain = blockOf(0, Array.from({ length: 5_000 }, (_, at) => `line ${at} of a build that says much the same`));
    const text = new Uint8Array(execFileSync("zstd", ["-q", "-1", "-c", `--stream-size=${plain.textBytes}`], { input: plain.text }));
    expect(text.length).toBeLessThan(plain.textBytes / 4);
    const lines = linesOf(0, { ...plain, codec: Codec.ZSTD, text });
    expect(lines).toHaveLength(5_000);
    expect(lines.at(-1) && textOf(lines.at(-1) as (typeof lines)[number])).toBe("line 4999 of a build that says much the same");
  });

  test.each([
    ["no lines", { lineCount: 0 }],
    ["more lines than the text has", { lineCount: 3, textBytes: 4 }],
    ["fewer lines than the text has", { lineCount: 1 }],
    ["a text that is longer than its header says", { textBytes: 3 }],
    ["a text beyond the limit", { textBytes: 1_048_577 }],
    ["an unknown codec", { codec: Codec.UNSPECIFIED }],
    ["rubbish instead of a zstd frame", { codec: Codec.ZSTD }],
    ["a frame that claims another size", { codec: Codec.ZSTD, text: new Uint8Array([0x28, 0xb5, 0x2f, 0xfd, 0x20, 200, 1, 0, 0]) }],
    ["a frame that asks for a window of gigabytes", { codec: Codec.ZSTD, text: new Uint8Array([0x28, 0xb5, 0x2f, 0xfd, 0x80, 0xa0, 4, 0, 0, 0, 1, 0, 0]) }],
    ["a frame that ends early", { codec: Codec.ZSTD, text: new Uint8Array([0x28, 0xb5, 0x2f, 0xfd, 0x20, 4]) }],
    ["a column that ends early", { flags: new Uint8Array([0, 1]) }],
    ["a column that goes on", { flags: new Uint8Array([0, 3]) }],
    ["a run of no lines", { flags: new Uint8Array([0, 0]) }],
    ["a number without an end", { times: new Uint8Array([0x80]) }],
    ["a number beyond 2^53", { times: new Uint8Array([255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1]) }],
  ])("refuses a block with %s", (_, wrong) => {
    expect(() => linesOf(1, blockOf(0, ["a", "b"], wrong))).toThrow(BlockError);
  });

  test("refuses a frame that unpacks to more than it declares, in bounded memory", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 1, max: 1_048_576 }), (text, textBytes) => {
        try {
          linesOf(1, blockOf(0, ["a"], { codec: Codec.ZSTD, text: new Uint8Array(text), textBytes }));
        } catch (error) {
          expect(error).toBeInstanceOf(BlockError);
        }
      }),
    );
  });
});

describe("pack", () => {
  test("brings lines of several blocks over as they were, also where the first ones are not wanted", () => {
    const blocks = fc.array(fc.tuple(fc.array(line, { minLength: 1, maxLength: 9 }), fc.nat(8)), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(blocks, fc.nat(2 ** 40), (all, first) => {
        let next = first;
        const parts = all.map(([lines, unwanted]) => {
          const fromSequence = next + Math.min(unwanted, lines.length - 1);
          const part = readBlock(7, blockOf(next, lines as TestLine[]), { fromSequence });
          next += lines.length;
          part.markInteresting(part.count - 1);
          return part;
        });
        const packed = pack(parts);
        expect(packed.buffer.byteLength).toBe(parts.reduce((sum, part) => sum + packedBytes(part), 0));
        const arrived = unpackLines(packed);
        const seen = (each: ReturnType<typeof linesOf>): unknown[] =>
          each.map((one) => [one.streamId, one.sequence, one.timeUs, one.channel, one.partial, one.severity, textOf(one)]);
        expect(seen(arrived.slice())).toEqual(seen(parts.flatMap((part) => part.slice())));
        expect([...arrived.interesting()].map(({ sequence }) => sequence)).toEqual(parts.map((part) => part.nextSequence - 1));
        expect(arrived.nextSequence).toBe(next);
      }),
    );
  });
});

function hasZstd(): boolean {
  try {
    execFileSync("zstd", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
