/** Counts of lines by severity, as the relay makes them, and as they are drawn. */
import { HistogramAxis } from "../../gen/millstream/v1/log_pb";
import type { LogClient } from "../rpc/client";

export interface Bucket {
  readonly lines: number;
  readonly warnings: number;
  readonly errors: number;
}

/** Over time. */
export interface Timeline {
  readonly sinceUs: number;
  readonly bucketUs: number;
  readonly buckets: readonly Bucket[];
  /** The relay gave up before it had counted everything. */
  readonly isPartial: boolean;
}

/** Over the sequences of one stream. */
export interface SequenceMap {
  readonly first: number;
  readonly bucketLines: number;
  readonly buckets: readonly Bucket[];
}

export interface TimeRange {
  readonly sinceUs: number;
  readonly untilUs: number;
}

export async function timeline(
  client: LogClient,
  streamIds: readonly number[],
  range: TimeRange | null,
  buckets: number,
  signal: AbortSignal,
): Promise<Timeline> {
  const response = await client.histogram(
    {
      streamIds: streamIds.map(BigInt),
      buckets,
      axis: HistogramAxis.TIME,
      ...(range === null ? {} : { sinceUnixUs: BigInt(Math.floor(range.sinceUs)), untilUnixUs: BigInt(Math.ceil(range.untilUs)) }),
    },
    { signal },
  );
  return {
    sinceUs: Number(response.sinceUnixUs),
    bucketUs: Number(response.bucketUs),
    buckets: response.buckets.map(bucketOf),
    isPartial: response.isPartial,
  };
}

export async function sequenceMap(client: LogClient, streamId: number, buckets: number, signal: AbortSignal): Promise<SequenceMap> {
  const response = await client.histogram({ streamIds: [BigInt(streamId)], buckets, axis: HistogramAxis.SEQUENCE }, { signal });
  return { first: Number(response.firstSequence), bucketLines: Number(response.bucketLines), buckets: response.buckets.map(bucketOf) };
}

function bucketOf({ lines, warnings, errors }: { lines: bigint; warnings: bigint; errors: bigint }): Bucket {
  return { lines: Number(lines), warnings: Number(warnings), errors: Number(errors) };
}

/**
 * An SVG path of bars in a box of `buckets.length` × 1, from `base` to `base + value`, as shares of `most`. A bar
 * that is there at all is never thinner than `least`.
 */
export function barsPath(buckets: readonly Bucket[], value: (bucket: Bucket) => number, base: (bucket: Bucket) => number, most: number, least = 0.03): string {
  let path = "";
  for (const [at, bucket] of buckets.entries()) {
    const height = value(bucket);
    if (height === 0 || most === 0) continue;
    const bottom = 1 - base(bucket) / most;
    const top = Math.max(0, Math.min(1 - (base(bucket) + height) / most, bottom - least));
    path += `M${at + 0.1} ${round(bottom)}V${round(top)}h.8V${round(bottom)}z`;
  }
  return path;
}

/** An SVG path of marks in a box of 1 × the stream's lines in buckets, where the value is not 0. */
export function marksPath(map: SequenceMap, value: (bucket: Bucket) => number): string {
  let path = "";
  for (const [at, bucket] of map.buckets.entries()) if (value(bucket) > 0) path += `M0 ${at}h1v1h-1z`;
  return path;
}

function round(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
