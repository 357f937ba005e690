/**
 * From the text of a line to what a terminal would show of it: styled spans without a control
 * character left in them. Every span is plain text; nothing here knows markup.
 */
import { CellRow, MAX_COLUMNS, type Span } from "./cells";
import { applySgr, PLAIN, type Style } from "./style";

export type { Span } from "./cells";

export interface ParsedLine {
  readonly spans: readonly Span[];
  /** The visible text: the spans' texts in one. */
  readonly text: string;
  /** Characters at the end that are not shown because the line is too long. */
  readonly hiddenCharacters: number;
}

/** Longest string sequence (OSC, DCS …) that is taken for one; a longer one is text after a stray ESC. */
const MAX_STRING_SEQUENCE = 4096;

/** Input beyond this many characters is not looked at when a line is painted. */
const MAX_INPUT = 65_536;

const CONTROL = /[\x00-\x08\x0a-\x1f\x7f-\x9f]/;
const JOINS = /^[\p{M}\u200d]$/u;
const CSI = /[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]/y;
const ESCAPE = /[\x20-\x2f]*[\x30-\x7e]/y;

/** Never throws, whatever the text. */
export function parseLine(text: string): ParsedLine {
  if (text.endsWith("\r")) text = text.slice(0, -1);
  let hidden = 0;
  if (text.length > MAX_INPUT) {
    // Of a progress bar the newest redraws count; of a long line its beginning.
    const redraw = text.indexOf("\r", text.length - MAX_INPUT);
    if (redraw >= 0) {
      text = text.slice(redraw);
    } else {
      hidden = text.length - MAX_INPUT;
      text = text.slice(0, MAX_INPUT);
    }
  }
  if (!CONTROL.test(text)) {
    if (text.length > MAX_COLUMNS) {
      hidden += text.length - MAX_COLUMNS;
      text = text.slice(0, MAX_COLUMNS);
    }
    return { spans: text === "" ? [] : [{ text, style: PLAIN }], text, hiddenCharacters: hidden };
  }
  const row = draw(text);
  const spans = row.spans();
  return { spans, text: spans.map((span) => span.text).join(""), hiddenCharacters: hidden + row.droppedCharacters };
}

function draw(text: string): CellRow {
  const row = new CellRow();
  let style: Style = PLAIN;
  let at = 0;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === 0x1b || code === 0x9b || code === 0x9d) {
      const sequence = readEscape(text, at);
      if (sequence.csi !== undefined) style = control(row, style, sequence.csi);
      at = sequence.next;
      continue;
    }
    if (code < 0x20 || (code >= 0x7f && code <= 0x9f)) {
      if (code === 0x0d) row.moveTo(0);
      else if (code === 0x08) row.moveBy(-1);
      else if (code === 0x09) row.tab(style);
      at += 1;
      continue;
    }
    const character = String.fromCodePoint(text.codePointAt(at) ?? 0xfffd);
    row.write(character, style, code >= 0x300 && JOINS.test(character));
    at += character.length;
  }
  return row;
}

/** One escape sequence that begins at `at`: where it ends and, for a control sequence, its body. */
function readEscape(text: string, at: number): { next: number; csi?: string } {
  const first = text.charCodeAt(at);
  const kind = first === 0x9b ? "[" : first === 0x9d ? "]" : text.charAt(at + 1);
  const body = first === 0x1b ? at + 2 : at + 1;
  if (kind === "[") {
    CSI.lastIndex = body;
    const match = CSI.exec(text);
    // Cut off or malformed: what of it was understood is dropped, the text after it stays.
    return match ? { next: CSI.lastIndex, csi: match[0] } : { next: skipParameters(text, body) };
  }
  if (kind === "]" || kind === "P" || kind === "X" || kind === "^" || kind === "_") {
    return { next: stringEnd(text, body) };
  }
  ESCAPE.lastIndex = at + 1;
  return { next: ESCAPE.test(text) ? ESCAPE.lastIndex : at + 1 };
}

function skipParameters(text: string, at: number): number {
  while (at < text.length && text.charCodeAt(at) >= 0x20 && text.charCodeAt(at) <= 0x3f) at += 1;
  return at;
}

/** After the terminator of a string sequence (BEL, ST or ESC \); its begin when there is none. */
function stringEnd(text: string, from: number): number {
  const limit = Math.min(text.length, from + MAX_STRING_SEQUENCE);
  for (let at = from; at < limit; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 0x07 || code === 0x9c) return at + 1;
    if (code === 0x1b && text.charAt(at + 1) === "\\") return at + 2;
  }
  return from;
}

/** Carries out a control sequence that acts on this row; every other one is dropped. */
function control(row: CellRow, style: Style, csi: string): Style {
  const final = csi.slice(-1);
  const parameters = csi.slice(0, -1);
  // Private (`?25l`) and intermediate forms are about the terminal, not about this row.
  if (!/^[0-9;:]*$/.test(parameters)) return style;
  const count = Number.parseInt(parameters, 10);
  const steps = Number.isNaN(count) || count === 0 ? 1 : count;
  switch (final) {
    case "m":
      return applySgr(style, parameters);
    case "K":
    case "J":
      row.erase(Number.isNaN(count) ? 0 : count);
      return style;
    case "C":
      row.moveBy(steps);
      return style;
    case "D":
      row.moveBy(-steps);
      return style;
    case "G":
      row.moveTo(steps - 1);
      return style;
    default:
      return style;
  }
}
