/**
 * Travis's folds: `travis_fold:start:NAME\r\e[0K`, the same with `end`, and `travis_time:end:ID:start=NS,finish=NS,…`
 * between them (travis-ci/travis-build, lib/travis/build/bash/travis_fold.bash and travis_time_finish.bash). What
 * follows in the line is the fold's header.
 */
import { plain, type MarkerEvent } from "./event";

const FOLD = /travis_(?:fold:(start|end):([\w.-]+)|time:(start|end):[\w.-]*(?::start=(\d{1,20}),finish=(\d{1,20})[^\r\n]*)?)(?:\r(?:\x1b\[0?K)?|$)/g;

export class TravisMarkers {
  /** Of the newest timed command, which the fold's end follows. */
  #durationMs: number | undefined;

  read(line: string): MarkerEvent[] {
    if (!line.includes("travis_")) return [];
    const events: MarkerEvent[] = [];
    const header = plain(line.replace(FOLD, ""));
    for (const [, edge, name = "", timeEdge, start, finish] of line.matchAll(FOLD)) {
      if (timeEdge === "end" && start !== undefined && finish !== undefined) {
        this.#durationMs = Math.max(0, (Number(finish) - Number(start)) / 1_000_000);
      } else if (timeEdge === "start") {
        this.#durationMs = undefined;
      } else if (edge === "start") {
        events.push({ kind: "open", family: "travis", key: name, title: header || name, collapsed: true, flow: "" });
      } else if (edge === "end") {
        events.push({ kind: "close", family: "travis", key: name, flow: "", durationMs: this.#durationMs });
        this.#durationMs = undefined;
      }
    }
    return events;
  }
}
