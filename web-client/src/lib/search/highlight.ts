/**
 * Where in a painted line the hits are. The relay alone decides which lines match; this only shows where, so
 * that it may give up: on patterns that this language does not have, and on those that its engine, which
 * backtracks, could spend minutes on.
 */
import type { Query } from "./query";

/** A part of a line, in UTF-16 units. */
export interface Part {
  readonly from: number;
  readonly to: number;
}

export type Finder = (text: string) => Part[];

/** Text of a line that is looked through, and parts of one line that are shown. */
const MAX_TEXT = 4_000;
const MAX_REGEX_TEXT = 500;
const MAX_PARTS = 200;

export function finderOf(query: Query): Finder {
  if (query.text === "") return () => [];
  const pattern = query.isRegex ? regexOf(query) : new RegExp(escape(query.text), query.matchesCase ? "gu" : "giu");
  if (pattern === null) return () => [];
  const limit = query.isRegex ? MAX_REGEX_TEXT : MAX_TEXT;
  return (text) => {
    const parts: Part[] = [];
    for (const match of text.slice(0, limit).matchAll(pattern)) {
      if (match[0] === "") continue;
      parts.push({ from: match.index, to: match.index + match[0].length });
      if (parts.length === MAX_PARTS) break;
    }
    return parts;
  };
}

function escape(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

/** Null: this language does not have the pattern, or not in reasonable time. */
function regexOf({ text, matchesCase }: Query): RegExp | null {
  if (!isTame(text)) return null;
  let flags = matchesCase ? "gu" : "giu";
  // Rust's way to begin a pattern with flags.
  const inline = /^\(\?([ims]+)\)/.exec(text);
  if (inline?.[1]?.includes("i") && matchesCase) flags += "i";
  try {
    return new RegExp(inline ? text.slice(inline[0].length) : text, flags);
  } catch {
    return null;
  }
}

/**
 * No repetition of something that repeats or chooses, and not more than two that are unbounded: then a line's
 * time is at most the cube of a length that is bounded.
 */
function isTame(pattern: string): boolean {
  const bare = pattern.replace(/\\./g, "x").replace(/\[(?:\^?\])?[^\]]*\]/g, "x");
  if (/\([^()]*[*+{|][^()]*\)[*+{]/.test(bare) || /\)\)[*+{]/.test(bare)) return false;
  return (bare.match(/[*+]|\{\d+,\}/g) ?? []).length <= 2;
}
