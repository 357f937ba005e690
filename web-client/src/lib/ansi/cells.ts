/**
 * One row of a terminal: characters are written at a cursor, so that what `\r`, backspace and erase
 * sequences overwrite is gone, as on a screen.
 */
import { PLAIN, sameStyle, type Style } from "./style";

/** Widest row that is kept; a terminal would have wrapped long before. */
export const MAX_COLUMNS = 16_384;

/** A piece of a row in one style. */
export interface Span {
  readonly text: string;
  readonly style: Style;
}

export class CellRow {
  readonly #characters: string[] = [];
  readonly #styles: Style[] = [];
  #column = 0;
  #dropped = 0;

  /** Characters that did not fit. */
  get droppedCharacters(): number {
    return this.#dropped;
  }

  /** Writes one character at the cursor; a combining mark joins the character before it. */
  write(character: string, style: Style, joins: boolean): void {
    if (joins && this.#column > 0 && this.#column <= this.#characters.length) {
      const before = this.#characters[this.#column - 1] ?? "";
      // A bound on one cell keeps a flood of combining marks from becoming one endless glyph.
      if (before.length < 32) this.#characters[this.#column - 1] = before + character;
      return;
    }
    if (this.#column >= MAX_COLUMNS) {
      this.#dropped += 1;
      return;
    }
    this.#padTo(this.#column);
    this.#characters[this.#column] = character;
    this.#styles[this.#column] = style;
    this.#column += 1;
  }

  tab(style: Style): void {
    const stop = Math.min(MAX_COLUMNS, (Math.floor(this.#column / 8) + 1) * 8);
    // Within written text a tab only moves; at its end it leaves blanks that can be copied.
    if (stop > this.#characters.length) {
      while (this.#column < stop) this.write(" ", style, false);
    }
    this.#column = stop;
  }

  moveTo(column: number): void {
    this.#column = Math.min(MAX_COLUMNS, Math.max(0, column));
  }

  moveBy(columns: number): void {
    this.moveTo(this.#column + columns);
  }

  /** 0: from the cursor to the end; 1: from the start to the cursor; 2: all. */
  erase(mode: number): void {
    if (mode === 2) this.#truncate(0);
    else if (mode === 0) this.#truncate(this.#column);
    else if (mode === 1) {
      const end = Math.min(this.#column + 1, this.#characters.length);
      for (let at = 0; at < end; at += 1) {
        this.#characters[at] = " ";
        this.#styles[at] = PLAIN;
      }
    }
  }

  spans(): Span[] {
    const spans: Span[] = [];
    let from = 0;
    for (let at = 1; at <= this.#characters.length; at += 1) {
      const style = this.#styles[from] ?? PLAIN;
      if (at < this.#characters.length && sameStyle(this.#styles[at] ?? PLAIN, style)) continue;
      spans.push({ text: this.#characters.slice(from, at).join(""), style });
      from = at;
    }
    return spans;
  }

  #truncate(length: number): void {
    if (length >= this.#characters.length) return;
    this.#characters.length = length;
    this.#styles.length = length;
  }

  #padTo(column: number): void {
    while (this.#characters.length < column) {
      this.#characters.push(" ");
      this.#styles.push(PLAIN);
    }
  }
}
