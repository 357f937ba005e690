/**
 * A quick look through many lines at once: which of them are worth the patterns that decide. Live logs are looked
 * through as they come, and most lines are neither marker nor complaint.
 */
import { CANDIDATES } from "./parser";
import { ERROR_LINES } from "./severity";

/** A part of every line that is a candidate or looks like an error; plain words, which engines find four times as fast. */
const LIKELY = String.raw`[Ee]rror|ERR|[Ff]atal|FATAL|panic|CRIT|FAIL|xception|\*\*\* |Traceback|\nE {3}|::|##|section_|travis_|\n#[0-9]|---[ \t]|\+\+\+[ \t]|~~~[ \t]|\^\^\^[ \t]`;

const likely = new RegExp(LIKELY, "g");
const interesting = new RegExp(`${CANDIDATES}|${ERROR_LINES}`);

/** Where a line begins, and where the newline after it is. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Indices of the lines that can be markers or look like errors. `spans` are the lines of `text`, one after the other. */
export function* interestingLines(text: string, spans: readonly Span[]): Generator<number> {
  const [first] = spans;
  if (first === undefined) return;
  // Before the first line there is no newline by which its beginning is known.
  if (isInteresting(text, first)) yield 0;
  let at = 0;
  likely.lastIndex = first.end;
  for (let match = likely.exec(text); match !== null; match = likely.exec(text)) {
    const place = match.index + (match[0].startsWith("\n") ? 1 : 0);
    while (at < spans.length - 1 && (spans[at]?.end ?? 0) <= place) at += 1;
    const span = spans[at];
    if (span === undefined) return;
    const next = Math.max(likely.lastIndex, span.end);
    if (isInteresting(text, span)) yield at;
    // Others may have looked for something while this waited.
    likely.lastIndex = next;
  }
}

/** With its newline, which is white space behind a last word. */
function isInteresting(text: string, { start, end }: Span): boolean {
  return interesting.test(text.slice(start, end + 1));
}
