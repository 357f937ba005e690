/**
 * Rows of one stream that are drawn as one picture because lines go up and redraw them: the bars of several
 * downloads, the steps of a container build. Rows above are taken in as the cursor reaches them.
 */
import { CellRow } from "../ansi/cells";
import { boundedInput, columnAfter, shown } from "../ansi/parse";
import { MAX_HEIGHT, Screen } from "../ansi/screen";
import type { Style } from "../ansi/style";
import type { Line } from "../block/lines";
import { isOpen, LineRow, parsed, rowText } from "./row";

/** Lines that a row keeps, to draw the picture again when lines before it are read. */
const MAX_KEPT_LINES = 2_000;

/** What is known of a row beside its cells. */
interface Frame {
  row: LineRow;
  lines: Line[];
  isSealed: boolean;
}

let pictures = 0;

export class Picture {
  readonly #screen: Screen;
  readonly #frames: Frame[] = [];
  #id = (pictures += 1);
  #isClipped = false;
  #openColumn: number | null = null;

  constructor(style: Style) {
    this.#screen = new Screen(style);
  }

  /** Later lines write below the picture: nothing of it can change but by going up again. */
  get isDone(): boolean {
    return this.#screen.isAtBottom;
  }

  get style(): Style {
    return this.#screen.style;
  }

  /** Rows that the cursor can go up within the picture. */
  get rowsAbove(): number {
    return this.#screen.rowsAbove;
  }

  /** The first row, above which further ones are taken in; null as long as there is none. */
  get top(): LineRow | null {
    return this.#frames[0]?.row ?? null;
  }

  /** Takes in the rows above, the nearest last. */
  takeIn(rows: readonly LineRow[]): void {
    if (rows.length === 0) return;
    const isFirst = this.#frames.length === 0;
    this.#screen.prepend(rows.map((row) => CellRow.of(parsed(row).spans)));
    this.#frames.unshift(...rows.map((row) => ({ row, lines: [...row.lines], isSealed: row.drawn?.isSealed ?? false })));
    this.#isClipped ||= rows[0]?.drawn?.isClipped === true;
    // It goes on with the picture that it draws over: what changes that one changes both.
    this.#id = rows.find((row) => row.drawn !== null)?.drawn?.picture ?? this.#id;
    // Of a row that had not ended the text goes on.
    const last = rows.at(-1);
    if (isFirst && last !== undefined && isOpen(last)) this.#screen.goOn(last.drawn?.openColumn ?? columnAfter(rowText(last)));
  }

  draw(line: Line): void {
    const screen = this.#screen;
    const rowsBefore = screen.rows.length;
    screen.reachedAbove = false;
    screen.write(boundedInput(rowText(new LineRow(line))).text);
    // Where nothing is above, also a line that only goes up has a row.
    if (!line.partial) screen.newline();
    else if (this.#frames.length === 0) screen.beginRow();
    this.#openColumn = line.partial && !screen.isAtBottom ? screen.column : null;
    this.#isClipped ||= screen.reachedAbove;
    const last = this.#frames.at(-1);
    if (screen.rows.length > rowsBefore) {
      // One line makes one row at most: only its newline leads below the last one.
      this.#frames.push({ row: new LineRow(line), lines: [line], isSealed: false });
    } else if (last !== undefined) {
      last.row = last.row.with({ nextSequence: line.sequence + 1 });
      if (last.lines.length < MAX_KEPT_LINES) last.lines.push(line);
      else last.isSealed = true;
    }
  }

  /** Its rows as they are now, by key. */
  rows(): Map<string, LineRow> {
    const rows = new Map<string, LineRow>();
    for (const [at, { row, lines, isSealed }] of this.#frames.entries()) {
      const cells = this.#screen.rows[at];
      const drawn = {
        line: cells ? shown(cells) : { spans: [], text: "", hiddenCharacters: 0 },
        picture: this.#id,
        styleAfter: this.#screen.style,
        openColumn: this.#openColumn,
        isSealed,
        isClipped: at === 0 && this.#isClipped,
      };
      rows.set(row.key, row.with({ lines: [...lines], drawn }));
    }
    return rows;
  }

  /** Lets go of rows that the cursor cannot reach any more. */
  release(): void {
    const excess = this.#frames.length - MAX_HEIGHT;
    if (excess <= 0) return;
    this.#frames.splice(0, excess);
    this.#screen.release(excess);
    this.#isClipped = false;
  }
}
