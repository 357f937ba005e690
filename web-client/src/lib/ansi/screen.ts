/**
 * The part of a terminal that a log needs: rows of cells, a cursor, a style. What `\r`, backspace, erasing and
 * cursor movements overwrite is gone, as on a screen. Whatever is about the terminal and not about its text is dropped.
 */
import { CellRow, MAX_COLUMNS } from "./cells";
import { readEscape } from "./escape";
import { safeLink } from "./link";
import { applySgr, PLAIN, type Style } from "./style";
import { widthOf } from "./width";

/** Rows that the cursor can go up at most: no terminal is taller by much. */
export const MAX_HEIGHT = 100;

export class Screen {
  /** Rows that exist; the cursor may stand on the one after the last, which begins to exist with its first character. */
  readonly rows: CellRow[] = [];
  style: Style;
  /** The cursor wanted to go above the first row. */
  reachedAbove = false;
  #row = 0;
  #column = 0;
  /** The last row that a newline has led to: a cursor that goes down stops there. */
  #bottom = 0;
  #saved: { row: number; column: number; style: Style } | null = null;
  /** Between a saved cursor's jump to a fixed place of the terminal (a status line) and its return. */
  #isElsewhere = false;

  constructor(style: Style = PLAIN) {
    this.style = style;
  }

  /** The cursor stands at the begin of a row that does not exist yet. */
  get isAtBottom(): boolean {
    return this.#row >= this.rows.length && this.#column === 0;
  }

  /** Rows that the cursor can go up before it reaches above. */
  get rowsAbove(): number {
    return this.#row;
  }

  /** Puts rows above those that are there. */
  prepend(rows: readonly CellRow[]): void {
    this.rows.unshift(...rows);
    this.#row += rows.length;
    this.#bottom += rows.length;
    if (this.#saved) this.#saved = { ...this.#saved, row: this.#saved.row + rows.length };
  }

  /** Lets go of the first rows: the cursor does not reach them any more. */
  release(count: number): void {
    this.rows.splice(0, count);
    this.#row = Math.max(0, this.#row - count);
    this.#bottom = Math.max(0, this.#bottom - count);
    if (this.#saved) this.#saved = { ...this.#saved, row: Math.max(0, this.#saved.row - count) };
  }

  /** Columns before the cursor. */
  get column(): number {
    return this.#column;
  }

  /** The cursor goes to a column of the last row, which has not ended. */
  goOn(column: number): void {
    this.#row = Math.max(0, this.rows.length - 1);
    this.#bottom = this.#row;
    this.#column = column;
  }

  /** The row in which the cursor stands exists from now on, also with no text in it. */
  beginRow(): void {
    this.#current();
  }

  /** Ends the line: the cursor goes to the begin of the next row. Links do not reach over it. */
  newline(): void {
    this.#current();
    this.#row += 1;
    this.#bottom = Math.max(this.#bottom, this.#row);
    this.#column = 0;
    this.#isElsewhere = false;
    if (this.style.link !== null) this.style = { ...this.style, link: null };
  }

  /** Text of one line, without its newline. Never throws, whatever the text. */
  write(text: string): void {
    let at = 0;
    while (at < text.length) {
      const code = text.charCodeAt(at);
      if (code === 0x1b || (code >= 0x80 && code <= 0x9f)) {
        at = this.#escape(text, at, code);
      } else if (code < 0x20 || code === 0x7f) {
        if (code === 0x0d) this.#column = 0;
        else if (code === 0x08) this.#moveBy(-1);
        else if (code === 0x09) this.#tab();
        at += 1;
      } else {
        const character = String.fromCodePoint(text.codePointAt(at) ?? 0xfffd);
        this.#put(character);
        at += character.length;
      }
    }
  }

  #put(character: string): void {
    if (this.#isElsewhere) return;
    const width = widthOf(character);
    const row = this.#current();
    if (width === 0 && this.#column > 0) row.combine(this.#column, character);
    else this.#column += row.write(this.#column, character, Math.max(1, width), this.style);
  }

  #escape(text: string, at: number, code: number): number {
    if (code !== 0x1b && code !== 0x9b && code !== 0x9d) return at + 1;
    const escape = readEscape(text, at);
    if (escape.kind === "control") this.#control(escape.body);
    else if (escape.kind === "command") this.#command(escape.body);
    else if (escape.kind === "single") this.#single(escape.final);
    return escape.next;
  }

  #single(final: string): void {
    if (final === "7") this.#save();
    else if (final === "8") this.#restore();
    else if (final === "M") this.#up(1);
    else if (final === "D") this.#down(1);
    else if (final === "E") {
      this.#down(1);
      this.#column = 0;
    }
  }

  /** OSC 8 sets the link of the text that follows; every other command is about the terminal. */
  #command(body: string): void {
    const link = /^8;[^;]*;(.*)$/s.exec(body);
    if (link) this.style = { ...this.style, link: safeLink(link[1] ?? "") };
  }

  #control(body: string): void {
    const final = body.slice(-1);
    const parameters = body.slice(0, -1);
    // Private (`?25l`) and intermediate forms are about the terminal, not about its text.
    if (!/^[0-9;:]*$/.test(parameters)) return;
    const number = Number.parseInt(parameters, 10);
    const steps = Number.isNaN(number) || number === 0 ? 1 : number;
    switch (final) {
      case "m":
        this.style = applySgr(this.style, parameters);
        break;
      case "A":
        this.#up(steps);
        break;
      case "B":
      case "e":
        this.#down(steps);
        break;
      case "C":
      case "a":
        this.#moveBy(steps);
        break;
      case "D":
        this.#moveBy(-steps);
        break;
      case "E":
        this.#down(steps);
        this.#column = 0;
        break;
      case "F":
        this.#up(steps);
        this.#column = 0;
        break;
      case "G":
      case "`":
        this.#moveTo(steps - 1);
        break;
      case "H":
      case "f":
        if (this.#saved !== null) this.#isElsewhere = true;
        break;
      case "s":
        this.#save();
        break;
      case "u":
        this.#restore();
        break;
      default:
        if (!this.#isElsewhere) this.#edit(final, Number.isNaN(number) ? 0 : number, steps);
    }
  }

  #edit(final: string, mode: number, count: number): void {
    // A row that does not exist has nothing to erase.
    const row = this.rows[this.#row];
    switch (final) {
      case "K":
        row?.erase(mode, this.#column, this.style);
        break;
      case "J":
        // What stands above was read and stays; a terminal that is cleared would lose it.
        row?.erase(mode === 1 ? 1 : mode === 0 ? 0 : 2, this.#column, this.style);
        if (mode !== 1) for (const below of this.rows.slice(this.#row + 1)) below.erase(2, 0, this.style);
        break;
      case "X":
        row?.blank(this.#column, this.#column + count, this.style);
        break;
      case "P":
        row?.delete(this.#column, count);
        break;
      case "@":
        row?.insert(this.#column, Math.min(count, MAX_COLUMNS));
        break;
      default:
        break;
    }
  }

  #current(): CellRow {
    let row = this.rows[this.#row];
    if (row === undefined) {
      row = new CellRow();
      this.#row = this.rows.length;
      this.rows.push(row);
    }
    return row;
  }

  #tab(): void {
    if (this.#isElsewhere) return;
    const stop = Math.min(MAX_COLUMNS, (Math.floor(this.#column / 8) + 1) * 8);
    // A tab moves and overwrites nothing; beyond the text it leaves blanks that can be copied.
    this.#current().pad(stop);
    this.#column = stop;
  }

  #moveTo(column: number): void {
    this.#column = Math.min(MAX_COLUMNS, Math.max(0, column));
  }

  #moveBy(columns: number): void {
    this.#moveTo(this.#column + columns);
  }

  #up(rows: number): void {
    const wanted = this.#row - Math.min(rows, MAX_HEIGHT);
    if (wanted < 0) this.reachedAbove = true;
    this.#row = Math.max(0, wanted);
  }

  #down(rows: number): void {
    this.#row = Math.min(this.#bottom, this.#row + rows);
  }

  #save(): void {
    this.#saved = { row: this.#row, column: this.#column, style: this.style };
  }

  #restore(): void {
    if (this.#saved === null) return;
    this.#row = this.#saved.row;
    this.#column = this.#saved.column;
    this.style = this.#saved.style;
    this.#saved = null;
    this.#isElsewhere = false;
  }
}
