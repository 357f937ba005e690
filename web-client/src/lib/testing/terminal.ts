/** A real terminal emulator as the judge of ours, and what both show in one form. */
import xterm, { type IBufferCell } from "@xterm/headless";
import { parsed } from "../feed/row";
import { RowWindow, type Entry } from "../feed/window";
import { PLAIN, type Style } from "../ansi/style";

/** Cells with a style; blanks have none, because terminals differ in what an erased cell is. */
export interface ShownRow {
  readonly text: string;
  readonly styles: readonly string[];
}

const ROWS = 100;

/** What the terminal shows of a whole log that begins at its lower edge, as logs do. */
export async function shownByTerminal(log: string, columns = 400): Promise<ShownRow[]> {
  const terminal = new xterm.Terminal({ cols: columns, rows: ROWS, scrollback: 100_000, allowProposedApi: true, convertEol: true });
  await new Promise<void>((resolve) => terminal.write(`${"\n".repeat(ROWS - 1)}${log}`, resolve));
  const buffer = terminal.buffer.active;
  const rows: ShownRow[] = [];
  for (let at = ROWS - 1; at < buffer.length; at += 1) {
    const line = buffer.getLine(at);
    let text = "";
    const styles: string[] = [];
    for (let column = 0; line !== undefined && column < line.length; column += 1) {
      const cell = line.getCell(column);
      if (cell === undefined || cell.getWidth() === 0) continue;
      text += cell.getChars() || " ";
      styles.push(cell.getChars().trim() === "" ? "" : styleOfCell(cell));
    }
    rows.push(trimmed(text, styles));
  }
  terminal.dispose();
  return withoutBlankEnd(rows);
}

/** What our rows show. */
export function shownByRows(window: Pick<RowWindow, "rows">): ShownRow[] {
  const rows = window.rows.map((row) => {
    if (row.kind === "gap") return { text: "gap", styles: [] };
    let text = "";
    const styles: string[] = [];
    for (const span of parsed(row).spans) {
      for (const character of withoutTabs(text, span.text)) {
        text += character;
        if (cellsOf(character).length > 0) styles.push(character.trim() === "" ? "" : nameOf(span.style));
      }
    }
    return trimmed(text, styles);
  });
  return withoutBlankEnd(rows);
}

/** A tab that only spaces stand for, as a terminal keeps it. */
function withoutTabs(before: string, text: string): string {
  let column = cellsOf(before).length;
  return [...text].map((character) => {
    const shown = character === "\t" ? " ".repeat(8 - (column % 8)) : character;
    column += cellsOf(shown).length;
    return shown;
  }).join("");
}

export function windowOf(...batches: readonly (readonly Entry[])[]): RowWindow {
  const window = new RowWindow();
  for (const batch of batches) window.append(batch);
  return window;
}

function trimmed(text: string, styles: readonly string[]): ShownRow {
  const kept = text.trimEnd();
  return { text: kept, styles: styles.slice(0, cellsOf(kept).length) };
}

/** The characters that stand in cells of their own. */
function cellsOf(text: string): string[] {
  return [...text].filter((character) => !/^[\p{M}\u200d]$/u.test(character));
}

function withoutBlankEnd(rows: ShownRow[]): ShownRow[] {
  while (rows.at(-1)?.text === "") rows.pop();
  return rows;
}

export function nameOf(style: Style): string {
  const set = (Object.keys(PLAIN) as (keyof Style)[]).filter((name) => name !== "link" && style[name] !== PLAIN[name]);
  return set.map((name) => (style[name] === true ? name : `${name}=${style[name]}`)).join(" ");
}

function styleOfCell(cell: IBufferCell): string {
  const colour = (isDefault: boolean, isRgb: boolean, value: number): Style["foreground"] => {
    if (isDefault) return null;
    if (isRgb) return `#${value.toString(16).padStart(6, "0")}`;
    return value < 16 ? value : paletteColour(value);
  };
  return nameOf({
    foreground: colour(cell.isFgDefault(), cell.isFgRGB(), cell.getFgColor()),
    background: colour(cell.isBgDefault(), cell.isBgRGB(), cell.getBgColor()),
    bold: cell.isBold() !== 0,
    dim: cell.isDim() !== 0,
    italic: cell.isItalic() !== 0,
    underline: cell.isUnderline() !== 0,
    strike: cell.isStrikethrough() !== 0,
    inverse: cell.isInverse() !== 0,
    link: null,
  });
}

/** xterm's table of 256 colours from its 17th on: six steps of each component, then greys. */
function paletteColour(index: number): string {
  const steps = [0x00, 0x5f, 0x87, 0xaf, 0xd7, 0xff];
  const hex = (value: number): string => value.toString(16).padStart(2, "0");
  if (index >= 232) return `#${hex(8 + (index - 232) * 10).repeat(3)}`;
  const cube = index - 16;
  return `#${[cube / 36, (cube / 6) % 6, cube % 6].map((step) => hex(steps[Math.floor(step)] ?? 0)).join("")}`;
}
