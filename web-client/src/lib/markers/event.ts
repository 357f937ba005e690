/** What a marker in a log says, whatever CI it was written for. */

/** The dialect that a marker belongs to. Groups of one dialect are closed by markers of the same. */
export type Family = "github" | "gitlab" | "buildkite" | "teamcity" | "travis" | "buildkit";

export type Severity = "error" | "warning" | "notice";

/** Something that the build points out, perhaps at a place in a file. */
export interface Remark {
  readonly severity: Severity;
  readonly message: string;
  readonly file?: string | undefined;
  readonly line?: number | undefined;
  readonly column?: number | undefined;
}

export interface Open {
  readonly kind: "open";
  readonly family: Family;
  /** What the closing marker names; empty where it names nothing. */
  readonly key: string;
  readonly title: string;
  /** The marker asks for a closed group. */
  readonly collapsed: boolean;
  /** Interleaved outputs nest on their own; "" is the one that all others share. */
  readonly flow: string;
  /** The marker's own time, milliseconds since the Unix epoch. */
  readonly timeMs?: number | undefined;
}

export interface Close {
  readonly kind: "close";
  readonly family: Family;
  readonly key: string;
  readonly flow: string;
  readonly timeMs?: number | undefined;
  readonly durationMs?: number | undefined;
}

export type MarkerEvent =
  | Open
  | Close
  /** Opens the group before it for the reader (Buildkite's `^^^ +++`). */
  | { readonly kind: "expand" }
  /** The groups that these lines seemed to open are none (the two headers of a diff). */
  | { readonly kind: "retract"; readonly sequence: number }
  | { readonly kind: "remark"; readonly remark: Remark }
  /** How far the build is: a fraction, 0 to 1, where it is known, and words. */
  | { readonly kind: "progress"; readonly fraction: number | null; readonly text: string }
  /** A flow begins within another one; null ends it. */
  | { readonly kind: "flow"; readonly flow: string; readonly parent: string | null };

const CONTROL = /\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]_P^X][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|[\x00-\x08\x0a-\x1f\x7f-\x9f]/g;

/** Longest title or message that is kept. */
const MAX_TEXT = 1_000;

/** Text for people: without escape sequences and control characters, of bounded length. */
export function plain(text: string): string {
  const clean = text.slice(0, 4 * MAX_TEXT).replace(CONTROL, "").trim();
  return clean.length > MAX_TEXT ? `${clean.slice(0, MAX_TEXT)}…` : clean;
}

/** A line or column: a positive number, or nothing. */
export function position(text: string | undefined): number | undefined {
  return text !== undefined && /^[1-9][0-9]{0,8}$/.test(text) ? Number(text) : undefined;
}
