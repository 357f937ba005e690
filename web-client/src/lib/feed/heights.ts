/**
 * Heights of rows whose text is wrapped: measured where they were painted, estimated from their bytes elsewhere. What an
 * estimate is wrong by shows in the position of the scroller alone, which holds on to a row and not to a pixel.
 */
import { evenPlaces, ROW_PX, unevenPlaces, type Places } from "./geometry";
import { shownBytes, type Row } from "./row";

export class RowHeights {
  #measured = new WeakMap<Row, number>();
  #columns = Infinity;
  #places = evenPlaces(0);
  /** What the places were made of. */
  #first: Row | undefined;
  #last: Row | undefined;
  #isOld = true;

  /** Columns of text in the width that there is; with another width everything is measured anew. */
  set columns(columns: number) {
    if (columns === this.#columns) return;
    this.#columns = columns;
    this.#measured = new WeakMap();
    this.#isOld = true;
  }

  /** A painted row is so high. Returns whether that is news. */
  measure(row: Row, heightPx: number): boolean {
    if (this.heightOf(row) === heightPx) return false;
    this.#measured.set(row, heightPx);
    this.#isOld = true;
    return true;
  }

  heightOf(row: Row): number {
    const measured = this.#measured.get(row);
    if (measured !== undefined) return measured;
    return row.kind === "line" ? ROW_PX * Math.max(1, Math.ceil(shownBytes(row) / this.#columns)) : ROW_PX;
  }

  /** Where rows stand. The rows of a window change at its ends; a row between that is drawn anew is measured when painted. */
  placesOf(rows: readonly Row[]): Places {
    const [first] = rows;
    const last = rows.at(-1);
    if (this.#isOld || rows.length !== this.#places.count || first !== this.#first || last !== this.#last) {
      this.#places = unevenPlaces(rows.map((row) => this.heightOf(row)));
      this.#first = first;
      this.#last = last;
      this.#isOld = false;
    }
    return this.#places;
  }
}
