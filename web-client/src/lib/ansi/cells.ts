/** The cells of one row of a terminal. */
import { PLAIN, sameStyle, type Style } from "./style";
import { widthOf } from "./width";

/** Widest row that is kept; a terminal would have wrapped long before. */
export const MAX_COLUMNS = 16_384;

/** A piece of a row in one style. */
export interface Span {
  readonly text: string;
  readonly style: Style;
}

export class CellRow {
  /** A wide character's second cell is the empty string. */
  readonly #characters: string[] = [];
  readonly #styles: Style[] = [];
  #dropped = 0;

  /** The cells that show these spans. */
  static of(spans: readonly Span[]): CellRow {
    const row = new CellRow();
    let column = 0;
    for (const { text, style } of spans) {
      for (const character of text) {
        if (character === "\t") {
          do column += row.write(column, " ", 1, style);
          while (column % 8 !== 0 && column < MAX_COLUMNS);
          continue;
        }
        const width = widthOf(character);
        if (width === 0 && column > 0) row.combine(column, character);
        else column += row.write(column, character, Math.max(1, width), style);
      }
    }
    return row;
  }

  get length(): number {
    return this.#characters.length;
  }

  /** Characters that did not fit. */
  get droppedCharacters(): number {
    return this.#dropped;
  }

  /** Writes one character of one or two cells; returns the cells that it took. */
  write(column: number, character: string, width: number, style: Style): number {
    if (column + width > MAX_COLUMNS) {
      this.#dropped += 1;
      return 0;
    }
    this.pad(column);
    this.#split(column);
    this.#split(column + width);
    this.#characters[column] = character;
    this.#styles[column] = style;
    if (width === 2) {
      this.#characters[column + 1] = "";
      this.#styles[column + 1] = style;
    }
    return width;
  }

  /** A combining mark joins the character before the cursor. */
  combine(column: number, mark: string): void {
    let at = Math.min(column, this.#characters.length) - 1;
    if (this.#characters[at] === "") at -= 1;
    const before = this.#characters[at];
    // A bound on one cell keeps a flood of combining marks from becoming one endless glyph.
    if (before !== undefined && before.length < 32) this.#characters[at] = before + mark;
  }

  /** 0: from the cursor to the end; 1: from the start through the cursor; 2: all. Blanks take the background. */
  erase(mode: number, column: number, style: Style): void {
    if (mode === 0) this.#eraseFrom(column);
    else if (mode === 2) this.#eraseFrom(0);
    else if (mode === 1) this.blank(0, column + 1, style);
  }

  /** Blanks written cells [from, to). */
  blank(from: number, to: number, style: Style): void {
    const end = Math.min(to, this.#characters.length);
    if (from >= end) return;
    this.#split(from);
    this.#split(end);
    const blank = style.background === null ? PLAIN : { ...PLAIN, background: style.background };
    for (let at = from; at < end; at += 1) {
      this.#characters[at] = " ";
      this.#styles[at] = blank;
    }
  }

  /** Takes cells out; what follows moves left. */
  delete(column: number, count: number): void {
    this.#split(column);
    this.#split(column + count);
    this.#characters.splice(column, count);
    this.#styles.splice(column, count);
  }

  /** Puts blanks in; what follows moves right. */
  insert(column: number, count: number): void {
    if (column >= this.#characters.length) return;
    this.#split(column);
    const blanks = Math.min(count, MAX_COLUMNS - column);
    this.#characters.splice(column, 0, ...Array<string>(blanks).fill(" "));
    this.#styles.splice(column, 0, ...Array<Style>(blanks).fill(PLAIN));
    this.#eraseFrom(MAX_COLUMNS);
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
    return spans.filter((span) => span.text !== "");
  }

  #eraseFrom(column: number): void {
    if (column >= this.#characters.length) return;
    this.#split(column);
    this.#characters.length = column;
    this.#styles.length = column;
  }

  /** What stands on both sides of a column is no longer one wide character. */
  #split(column: number): void {
    if (column > 0 && this.#characters[column] === "") {
      this.#characters[column] = " ";
      this.#characters[column - 1] = " ";
    }
  }

  /** Blanks up to a column. */
  pad(column: number): void {
    while (this.#characters.length < column) {
      this.#characters.push(" ");
      this.#styles.push(PLAIN);
    }
  }
}
