/** The run to compare a failed one with. */
import type { Stream } from "../../gen/millstream/v1/stream_pb";
import { hostName, sourceName } from "../catalog/groups";
import { outcomeOf } from "../text/outcome";

/**
 * The last run of the same source that passed: before the failed one rather than after it, on the same host
 * rather than elsewhere, of the same command rather than of another. Null when there is none.
 */
export function lastGoodRun(failed: Stream, streams: Iterable<Stream>): Stream | null {
  if (failed.run === undefined) return null;
  const startUs = failed.run.startUnixUs;
  const command = failed.run.argv.join("\0");
  const score = (stream: Stream): number =>
    (stream.run?.argv.join("\0") === command ? 4 : 0) +
    (hostName(stream) === hostName(failed) ? 2 : 0) +
    ((stream.run?.startUnixUs ?? 0n) < startUs ? 1 : 0);
  let best: Stream | null = null;
  for (const stream of streams) {
    if (stream.run === undefined || stream.streamId === failed.streamId) continue;
    if (sourceName(stream) !== sourceName(failed) || outcomeOf(stream) !== "passed") continue;
    const isBetter = best === null || score(stream) > score(best);
    const isNewer = best !== null && score(stream) === score(best) && stream.run.startUnixUs > (best.run?.startUnixUs ?? 0n);
    if (isBetter || isNewer) best = stream;
  }
  return best;
}
