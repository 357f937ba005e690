/** Where an escape sequence ends, and what it is. Nothing here acts. */

export type Escape =
  /** `ESC [ … final`: the parameters with the final character. */
  | { readonly kind: "control"; readonly next: number; readonly body: string }
  /** A two-character sequence by its last character, such as `7` or `M`. */
  | { readonly kind: "single"; readonly next: number; readonly final: string }
  /** An operating system command (`ESC ] … BEL`), without its terminator. */
  | { readonly kind: "command"; readonly next: number; readonly body: string }
  | { readonly kind: "other"; readonly next: number };

/** Longest string sequence (OSC, DCS …) that is taken for one; a longer one is text after a stray ESC. */
const MAX_STRING_SEQUENCE = 4096;

const CSI = /[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]/y;
const ESCAPE = /[\x20-\x2f]*[\x30-\x7e]/y;

/** The sequence that begins at `at`, with ESC or with one of its eight-bit forms. */
export function readEscape(text: string, at: number): Escape {
  const first = text.charCodeAt(at);
  const kind = first === 0x9b ? "[" : first === 0x9d ? "]" : text.charAt(at + 1);
  const body = first === 0x1b ? at + 2 : at + 1;
  if (kind === "[") {
    CSI.lastIndex = body;
    const match = CSI.exec(text);
    // Cut off or malformed: what of it was understood is dropped, the text after it stays.
    return match ? { kind: "control", next: CSI.lastIndex, body: match[0] } : { kind: "other", next: skipParameters(text, body) };
  }
  if (kind === "]" || kind === "P" || kind === "X" || kind === "^" || kind === "_") {
    const { next, end } = stringEnd(text, body);
    return kind === "]" && end > body ? { kind: "command", next, body: text.slice(body, end) } : { kind: "other", next };
  }
  ESCAPE.lastIndex = at + 1;
  if (!ESCAPE.test(text)) return { kind: "other", next: at + 1 };
  const next = ESCAPE.lastIndex;
  return next === at + 2 ? { kind: "single", next, final: kind } : { kind: "other", next };
}

function skipParameters(text: string, at: number): number {
  while (at < text.length && text.charCodeAt(at) >= 0x20 && text.charCodeAt(at) <= 0x3f) at += 1;
  return at;
}

/** The end of a string sequence and the place after its terminator (BEL, ST or ESC \); its begin where there is none. */
function stringEnd(text: string, from: number): { end: number; next: number } {
  const limit = Math.min(text.length, from + MAX_STRING_SEQUENCE);
  for (let at = from; at < limit; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 0x07 || code === 0x9c) return { end: at, next: at + 1 };
    if (code === 0x1b && text.charAt(at + 1) === "\\") return { end: at, next: at + 2 };
  }
  return { end: from, next: from };
}
