/**
 * The structure of one stream: a tree of groups, and what the build points out. It is told of the lines in order, or
 * of those that can matter, and knows nothing of what is loaded or painted.
 */
import type { Close, Family, MarkerEvent, Open, Remark } from "./event";
import { countBetween, firstAtLeast } from "./sorted";

export interface Group {
  /** The line of its header: its identity. */
  readonly start: number;
  readonly family: Family;
  readonly key: string;
  readonly title: string;
  readonly parent: Group | null;
  readonly depth: number;
  /** The marker asks for a closed group. */
  readonly wantsCollapsed: boolean;
  readonly flow: string;
  readonly startMs: number;
  /** Capture time of the header, milliseconds. */
  readonly capturedMs: number;
  /** Sequence after its last line; null while it goes on. */
  end: number | null;
  /** A marker ended it, not the end of the stream. */
  isClosed: boolean;
  /** Milliseconds, once it has ended and where it is known. */
  durationMs: number | null;
  /** `startMs` is the marker's own time. */
  readonly hasOwnTime: boolean;
}

/** Something that is pointed out, at its line. */
export interface Note extends Remark {
  readonly sequence: number;
}

export interface Progress {
  readonly sequence: number;
  readonly fraction: number | null;
  readonly text: string;
}

/** What is kept of a stream at most; what comes beyond is not in the outline, and the log itself is whole. */
export const MAX_GROUPS = 50_000;
export const MAX_NOTES = 50_000;
/** Groups within groups; deeper ones stand flat. */
const MAX_DEPTH = 32;

export class Outline {
  readonly #groups: Group[] = [];
  readonly #notes: Note[] = [];
  readonly #errors: number[] = [];
  /** Lines that look like an error and are not pointed out by a marker. */
  readonly #errorLines: number[] = [];
  readonly #warnings: number[] = [];
  /** Open groups of each flow, the innermost last. */
  readonly #open = new Map<string, Group[]>();
  readonly #parents = new Map<string, string>();
  readonly #closers = new Set<number>();
  /** Groups that the newest one ended by beginning, should it turn out to be none. */
  #endedByNewest: Group[] = [];
  #progress: Progress | null = null;
  #hasExpanded = false;
  #isTruncated = false;
  #version = 0;

  /** By start, which is the order in which they begin. */
  get groups(): readonly Group[] {
    return this.#groups;
  }

  /** By sequence. Lines that only look like an error are counted, but are not among these. */
  get notes(): readonly Note[] {
    return this.#notes;
  }

  get progress(): Progress | null {
    return this.#progress;
  }

  /** There was more than is kept. */
  get isTruncated(): boolean {
    return this.#isTruncated;
  }

  /** Grows with every change of the tree. */
  get version(): number {
    return this.#version;
  }

  /** Takes what a line says; lines come in the order of their sequences. */
  add(sequence: number, timeMs: number, events: readonly MarkerEvent[]): void {
    for (const event of events) {
      switch (event.kind) {
        case "open":
          this.#begin(sequence, timeMs, event);
          break;
        case "close":
          this.#close(sequence, timeMs, event);
          break;
        case "expand":
          this.#expand();
          break;
        case "retract":
          this.#retract(event.sequence);
          break;
        case "remark":
          this.#remark(sequence, event.remark);
          break;
        case "progress":
          this.#progress = { sequence, fraction: event.fraction, text: event.text };
          break;
        case "flow":
          if (event.parent === null) this.#endFlow(event.flow, sequence, timeMs);
          else if (event.parent !== event.flow && this.#parents.size < MAX_GROUPS) this.#parents.set(event.flow, event.parent);
          break;
      }
    }
    if (events.length > 0) this.#version += 1;
  }

  /** A line without a marker that looks like an error. */
  addErrorLine(sequence: number): void {
    if (this.#errorLines.length >= MAX_NOTES || (this.#errorLines.at(-1) ?? -1) >= sequence) return;
    if (this.noteAt(sequence) !== null || this.startingAt(sequence) !== null) return;
    this.#errorLines.push(sequence);
    this.#version += 1;
  }

  /** Groups that have not ended. */
  unended(): Group[] {
    return [...this.#open.values()].flat();
  }

  /** The stream has ended: so have the groups that no marker ended. */
  finish(head: number, timeMs: number): void {
    for (const stack of this.#open.values()) {
      for (const group of stack) {
        end(group, head, timeMs, undefined);
        // The marker's clock need not be the one of the last line.
        if (group.hasOwnTime) group.durationMs = null;
      }
    }
    this.#open.clear();
    this.#version += 1;
  }

  /** The group whose header a line is; the innermost where it is that of several. */
  startingAt(sequence: number): Group | null {
    const at = firstAtLeast(this.#groups, sequence + 1, startOf) - 1;
    const group = this.#groups[at];
    return group?.start === sequence ? group : null;
  }

  /** Groups that a line is in, the outermost first; a header is in its own group. */
  around(sequence: number): Group[] {
    const at = firstAtLeast(this.#groups, sequence + 1, startOf) - 1;
    // The nearest group before the line, or one around that, of the same flow or of another one that began before.
    for (let near = at; near >= 0 && near > at - MAX_DEPTH; near -= 1) {
      let group: Group | null = this.#groups[near] ?? null;
      while (group !== null && !covers(group, sequence)) group = group.parent;
      if (group === null) continue;
      const path: Group[] = [];
      for (; group !== null; group = group.parent) path.unshift(group);
      return path;
    }
    return [];
  }

  /** The marker of the line ended a group. */
  isCloser(sequence: number): boolean {
    return this.#closers.has(sequence);
  }

  noteAt(sequence: number): Note | null {
    const note = this.#notes[firstAtLeast(this.#notes, sequence, sequenceOf)];
    return note?.sequence === sequence ? note : null;
  }

  /** Errors within [from, to). */
  errorsWithin(from: number, to: number): number {
    return countBetween(this.#errors, from, to) + countBetween(this.#errorLines, from, to);
  }

  warningsWithin(from: number, to: number): number {
    return countBetween(this.#warnings, from, to);
  }

  /** Whether a group is shown closed when the reader has not said otherwise: never one that holds an error. */
  isCollapsed(group: Group): boolean {
    if (!group.wantsCollapsed || group.end === null) return false;
    // A group that nothing ended may hide the rest of the log, unless that is how its dialect ends them.
    if (!group.isClosed && group.family !== "buildkite") return false;
    if (group.family === "buildkite" && !this.#hasExpanded && group.key === "---" && group === this.#lastRegular()) return false;
    return this.errorsWithin(group.start, group.end) === 0;
  }

  /** Buildkite opens the last group of the kind `---` where no group is open. */
  #lastRegular(): Group | undefined {
    return this.#groups.findLast((group) => group.family === "buildkite" && group.key === "---");
  }

  #begin(start: number, lineMs: number, open: Open): void {
    const stack = this.#stack(open.flow);
    this.#endedByNewest = open.family === "buildkite" ? [...stack] : [];
    if (open.family === "buildkite") this.#endAll(stack, start, open.timeMs ?? lineMs, true);
    if (open.family === "buildkit" && stack.at(-1)?.family === "buildkit") this.#endAll(stack.splice(-1), start, lineMs, true);
    // The line that ended the group before is this one's header, and must not be hidden with that group.
    for (let at = this.#groups.length - 1; at >= 0 && at > this.#groups.length - MAX_DEPTH; at -= 1) {
      const group = this.#groups[at];
      if (group !== undefined && group.end === start + 1 && group.start < start) group.end = start;
    }
    if (this.#groups.length >= MAX_GROUPS) {
      this.#isTruncated = true;
      return;
    }
    if (open.family === "buildkite" && !open.collapsed) this.#hasExpanded = true;
    const parent = stack.at(-1) ?? this.#parentOf(open.flow);
    const group: Group = {
      start,
      family: open.family,
      key: open.key,
      title: open.title || "(untitled)",
      parent: parent !== null && parent.depth + 1 < MAX_DEPTH ? parent : null,
      depth: parent !== null && parent.depth + 1 < MAX_DEPTH ? parent.depth + 1 : 0,
      wantsCollapsed: open.collapsed,
      flow: open.flow,
      startMs: open.timeMs ?? lineMs,
      capturedMs: lineMs,
      hasOwnTime: open.timeMs !== undefined,
      end: null,
      isClosed: false,
      durationMs: null,
    };
    this.#groups.push(group);
    stack.push(group);
  }

  #close(sequence: number, lineMs: number, close: Close): void {
    const stack = this.#open.get(close.flow);
    if (stack === undefined) return;
    const at = stack.findLastIndex((group) => group.family === close.family && (close.key === "" || group.key === close.key));
    if (at < 0) return;
    const [group, ...within] = stack.splice(at);
    if (group === undefined) return;
    this.#closers.add(sequence);
    this.#endAll(within, sequence, lineMs, false);
    group.isClosed = true;
    end(group, sequence + 1, group.hasOwnTime && close.timeMs !== undefined ? close.timeMs : lineMs, close.durationMs);
  }

  #endAll(groups: Group[], sequence: number, timeMs: number, isClosed: boolean): void {
    for (const group of groups.splice(0)) {
      group.isClosed = isClosed;
      end(group, sequence, timeMs, undefined);
    }
  }

  #endFlow(flow: string, sequence: number, timeMs: number): void {
    const stack = this.#open.get(flow);
    if (stack !== undefined) this.#endAll(stack, sequence + 1, timeMs, false);
    this.#open.delete(flow);
    this.#parents.delete(flow);
  }

  #expand(): void {
    const group = this.#open.get("")?.at(-1);
    if (group === undefined) return;
    this.#hasExpanded = true;
    this.#replace(group, { ...group, wantsCollapsed: false });
  }

  #retract(start: number): void {
    const group = this.#groups.at(-1);
    if (group?.start !== start) return;
    this.#groups.pop();
    const stack = this.#open.get(group.flow);
    if (stack?.at(-1) !== group) return;
    stack.pop();
    for (const before of this.#endedByNewest.splice(0)) {
      before.end = null;
      before.isClosed = false;
      before.durationMs = null;
      stack.push(before);
    }
  }

  #replace(group: Group, by: Group): void {
    const at = this.#groups.lastIndexOf(group);
    const stack = this.#open.get(group.flow);
    if (at < 0 || stack === undefined) return;
    this.#groups[at] = by;
    stack[stack.lastIndexOf(group)] = by;
  }

  #remark(sequence: number, remark: Remark): void {
    if (this.#notes.length >= MAX_NOTES) {
      this.#isTruncated = true;
      return;
    }
    this.#notes.push({ ...remark, sequence });
    if (remark.severity === "error" && this.#errors.at(-1) !== sequence) this.#errors.push(sequence);
    if (remark.severity === "warning") this.#warnings.push(sequence);
  }

  #stack(flow: string): Group[] {
    let stack = this.#open.get(flow);
    if (stack === undefined) {
      stack = [];
      // A flood of flows is one flow.
      if (this.#open.size < 1_000) this.#open.set(flow, stack);
    }
    return stack;
  }

  /** The innermost open group of the flow that this one began in. */
  #parentOf(flow: string): Group | null {
    let name = this.#parents.get(flow);
    for (let steps = 0; name !== undefined && steps < MAX_DEPTH; steps += 1) {
      const group = this.#open.get(name)?.at(-1);
      if (group !== undefined) return group;
      name = this.#parents.get(name);
    }
    return null;
  }
}

const startOf = (group: Group): number => group.start;
const sequenceOf = (note: Note): number => note.sequence;

function covers(group: Group, sequence: number): boolean {
  return group.start <= sequence && (group.end === null || sequence < group.end);
}

function end(group: Group, sequence: number, timeMs: number, durationMs: number | undefined): void {
  group.end = Math.max(group.start + 1, sequence);
  group.durationMs = durationMs ?? Math.max(0, timeMs - group.startMs);
}
