/**
 * Buildkite's groups ("Managing log output", buildkite.com/docs): `--- title` closed, `+++ title` open, `~~~ title`
 * closed and of less weight, `^^^ +++` opens the group before. A group ends where the next one begins. The agent puts
 * `ESC _ bk;t=MILLISECONDS BEL` before lines.
 *
 * Other programs write such lines too: diffs, `set -x` (`+++ command`), strace, Go's tests. So groups count from the
 * first line on that only Buildkite would write: its timestamp, `~~~ title`, `^^^ +++` or a title with an :emoji:.
 */
import { plain, type MarkerEvent } from "./event";

const STAMP = /^(?:\x1b_bk;t=(\d{1,16})(?:\x07|\x1b\\))+/;
const HEADER = /^(?:\x1b\[[0-9;]*[mK])*(---|\+\+\+|~~~|\^\^\^)\s+(\S.*?)\s*$/s;

export class BuildkiteMarkers {
  #isBuildkite = false;
  /** The line of the newest `--- title`. */
  #dashes = -2;

  read(line: string, sequence: number): MarkerEvent | null {
    const stamp = STAMP.exec(line);
    const header = HEADER.exec(stamp ? line.slice(stamp[0].length) : line);
    this.#isBuildkite ||= stamp !== null;
    if (header === null) return null;
    const [, mark, title = ""] = header;
    if (mark === "^^^") {
      if (!/^\+\+\+/.test(title)) return null;
      this.#isBuildkite = true;
      return { kind: "expand" };
    }
    if (mark === "~~~" || /(?:^|\s):[a-z0-9_+-]+:/.test(title)) this.#isBuildkite = true;
    if (!this.#isBuildkite) return null;
    // The header of a diff: no group, and neither was the line before.
    if (mark === "+++" && this.#dashes === sequence - 1) return { kind: "retract", sequence: this.#dashes };
    if (mark === "---") this.#dashes = sequence;
    const timeMs = stamp ? Number(stamp[1]) : undefined;
    return { kind: "open", family: "buildkite", key: mark ?? "", title: plain(title), collapsed: mark !== "+++", flow: "", timeMs };
  }
}
