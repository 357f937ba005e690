/**
 * From the text of a line to what a terminal would show of it: styled spans without a control
 * character left in them. Every span is plain text; nothing here knows markup.
 */
import { MAX_COLUMNS, type CellRow, type Span } from "./cells";
import { Screen } from "./screen";
import { PLAIN, sameStyle, type Style } from "./style";

export type { Span } from "./cells";

export interface ParsedLine {
  readonly spans: readonly Span[];
  /** The visible text: the spans' texts in one. */
  readonly text: string;
  /** Characters at the end that are not shown because the line is too long. */
  readonly hiddenCharacters: number;
}

/** Input beyond this many characters is not looked at when a line is painted. */
const MAX_INPUT = 65_536;

const CONTROL = /[\x00-\x08\x0a-\x1f\x7f-\x9f]/;

/** The text of one line that is painted, and how much of it is left out. */
export function boundedInput(text: string): { text: string; hidden: number } {
  if (text.length <= MAX_INPUT) return { text, hidden: 0 };
  // Of a progress bar the newest redraws count; of a long line its beginning.
  const redraw = text.indexOf("\r", text.length - MAX_INPUT);
  if (redraw >= 0 && redraw < text.length - 1) return { text: text.slice(redraw), hidden: 0 };
  return { text: text.slice(0, MAX_INPUT), hidden: text.length - MAX_INPUT };
}

/** A line alone, in the style that the lines before left. Never throws, whatever the text. */
export function parseLine(line: string, style: Style = PLAIN): ParsedLine {
  let { text, hidden } = boundedInput(line.endsWith("\r") ? line.slice(0, -1) : line);
  if (!CONTROL.test(text)) {
    if (text.length > MAX_COLUMNS) {
      hidden += text.length - MAX_COLUMNS;
      text = text.slice(0, MAX_COLUMNS);
    }
    return { spans: text === "" ? [] : [{ text, style }], text, hiddenCharacters: hidden };
  }
  const screen = new Screen(style);
  screen.write(text);
  const [row] = screen.rows;
  return row ? shown(row, hidden) : { spans: [], text: "", hiddenCharacters: hidden };
}

/** What a row of cells shows. */
export function shown(row: CellRow, hidden = 0): ParsedLine {
  const spans = row.spans();
  return { spans, text: spans.map((span) => span.text).join(""), hiddenCharacters: hidden + row.droppedCharacters };
}

/** The column in which a line that did not end goes on. */
export function columnAfter(line: string): number {
  const screen = new Screen();
  screen.write(boundedInput(line).text);
  return screen.column;
}

/** The style that the lines after a line begin with. */
export function styleAfter(line: string, style: Style): Style {
  if (!line.includes("\x1b") && !line.includes("\x9b")) return style;
  const screen = new Screen(style);
  screen.write(boundedInput(line).text);
  screen.newline();
  return sameStyle(screen.style, PLAIN) ? PLAIN : screen.style;
}
