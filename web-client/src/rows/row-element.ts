/**
 * One painted row, which shows another row of the log whenever it is told to. Made by hand and not by a component: some
 * forty of them change sixty times a second, and with a component for each, more than a third of the script's time in a
 * frame and of what it allocated went into finding out what had changed. Log text goes into text nodes and nowhere else.
 */
import { Channel } from "../gen/millstream/v1/block_pb";
import { paintOf } from "../lib/ansi/classes";
import type { Decoration } from "../lib/feed/decoration";
import { cutBytes, parsed, rowText, type LineRow, type Row } from "../lib/feed/row";
import type { PlaceLink } from "../lib/links/find";
import { piecesOf, type Piece } from "../lib/links/pieces";
import type { Note } from "../lib/markers/outline";
import { formatBytes, formatCount, formatInstant, formatTime, type TimestampMode } from "../lib/text/format";
import { HeaderElement } from "./header-element";

/** What a row shows. */
export interface RowItem {
  readonly row: Row;
  /** The row above. */
  readonly before: Row | null;
  /** Link to the row. */
  readonly href: string;
  /** Pixels below the first row where it is painted out of its place, because a selection begins in it. */
  readonly apartPx: number | null;
  readonly decoration: Decoration;
  /** The stream's host, where several streams are shown; `colour` is an index. */
  readonly tag: { readonly colour: number; readonly name: string } | null;
  /** A link points at it. */
  readonly isTarget: boolean;
  /** Where places in sources lead; null: nowhere. */
  readonly placeLink: PlaceLink | null;
}

/** How all rows of a view show what they show. */
export interface RowStyle {
  readonly timestamps: TimestampMode;
  /** What is too long for the view's width goes on below. */
  readonly wraps: boolean;
  /** Start of the view's first stream, from which times may be counted, microseconds since the Unix epoch. */
  readonly startUs: number;
  /** Digits of the longest line number. */
  readonly digits: number;
}

export interface RowActions {
  /** The line number was chosen; `extends`: up to here from the line that was chosen before. */
  pick(row: LineRow, extendsRange: boolean): void;
  /** The group whose header it shows is to be opened or closed. */
  toggle(item: RowItem): void;
}

/**
 * Text that needs a box of its own: tabs stand relative to its beginning, and characters that are written from right to
 * left (or say so) must not take the line number with them. A line without any is laid out in half the time.
 */
const NEEDS_BOX = /[\t\u0590-\u{10ffff}]/u;

export class RowElement {
  readonly element = document.createElement("div");
  readonly #actions: RowActions;
  readonly #gutter = document.createElement("span");
  readonly #tag = document.createElement("span");
  readonly #tagName = document.createElement("span");
  /** Brings line numbers to one width. */
  readonly #padding = new Text();
  readonly #number = document.createElement("a");
  readonly #digits = new Text();
  readonly #gapSign = document.createElement("span");
  readonly #time = document.createElement("time");
  readonly #clock = new Text();
  readonly #text = document.createElement("span");
  readonly #guides = make("i", "guides");
  /** The text of a row that is nothing but text. */
  readonly #plain = new Text();
  /** Made when it first shows the header of a group. */
  #header: HeaderElement | null = null;
  #item: RowItem | null = null;
  #classes = "";
  #isBoxed: boolean | null = null;
  #style: RowStyle | null = null;

  constructor(actions: RowActions) {
    this.#actions = actions;
    this.element.dataset["testid"] = "log-row";
    this.#gutter.className = "gutter";
    this.#tag.append(this.#tagName);
    this.#number.className = "number";
    this.#number.dataset["testid"] = "line-number";
    this.#number.title = "Link to this line; with Shift, to all lines from the chosen one to here";
    this.#number.append(this.#digits);
    this.#number.addEventListener("click", (event) => this.#onClick(event));
    this.#gapSign.className = "number";
    this.#gapSign.textContent = "⋯";
    this.#time.dataset["testid"] = "timestamp";
    this.#time.append(this.#clock);
    this.#time.addEventListener("pointermove", () => this.#sayInstant());
    this.#text.dataset["testid"] = "log-text";
    this.element.append(this.#gutter, this.#text);
  }

  /** The row that it shows; null before the first one. */
  get row(): Row | null {
    return this.#item?.row ?? null;
  }

  show(item: RowItem, style: RowStyle): void {
    const before = this.#item;
    const styleBefore = this.#style;
    this.#item = item;
    this.#style = style;
    this.#showBox(item, style, before);
    if (before === null || styleBefore === null || gutterOf(before, styleBefore) !== gutterOf(item, style)) this.#fillGutter(item, style);
    this.#showGutter(item, style, before);
    if (before === null || isOther(before, item)) this.#showText(item);
    else if (item.decoration.header !== null) this.#header?.show(item.decoration.header);
  }

  #showBox(item: RowItem, style: RowStyle, before: RowItem | null): void {
    const { element } = this;
    const { row, decoration, apartPx } = item;
    const classes = classesOf(item, style);
    if (classes !== this.#classes) element.className = this.#classes = classes;
    if (row.kind !== before?.row.kind) element.dataset["kind"] = row.kind;
    if (row.streamId !== before?.row.streamId) element.dataset["streamId"] = String(row.streamId);
    if (row !== before?.row) element.dataset["sequence"] = String(row.sequence);
    if (decoration.depth !== (before?.decoration.depth ?? 0)) element.style.setProperty("--depth", String(decoration.depth));
    if (apartPx !== (before?.apartPx ?? null)) element.style.top = apartPx === null ? "" : `${apartPx}px`;
  }

  #fillGutter({ row, tag }: RowItem, { timestamps }: RowStyle): void {
    const parts: Node[] = [];
    if (tag !== null) parts.push(this.#tag);
    parts.push(this.#padding);
    if (row.kind === "gap") parts.push(this.#gapSign);
    else parts.push(this.#number);
    if (row.kind !== "gap" && timestamps !== "off") parts.push(this.#time);
    this.#gutter.replaceChildren(...parts);
  }

  #showGutter({ row, before: above, href, tag }: RowItem, { timestamps, startUs, digits }: RowStyle, before: RowItem | null): void {
    if (tag !== null) {
      this.#tag.className = `tag host-${tag.colour}`;
      this.#tag.title = tag.name;
      this.#tagName.className = above?.streamId === row.streamId ? "isSameHost" : "";
      if (tag.name !== before?.tag?.name) this.#tagName.textContent = tag.name;
    }
    const number = row.kind === "gap" ? "⋯" : String(row.sequence);
    setData(this.#padding, " ".repeat(Math.max(0, digits - number.length)));
    if (row.kind === "gap") return;
    setData(this.#digits, number);
    if (href !== before?.href) this.#number.setAttribute("href", href);
    if (timestamps === "off") return;
    const beforeUs = above === null || above.kind === "gap" ? null : above.timeUs;
    setData(this.#clock, formatTime(row.timeUs, timestamps, { startUs, beforeUs }));
  }

  #showText(item: RowItem): void {
    const { decoration } = item;
    const nodes: Node[] = decoration.depth > 0 ? [this.#guides] : [];
    if (decoration.header !== null) {
      this.#header ??= new HeaderElement(() => this.#toggle());
      this.#header.show(decoration.header);
      nodes.push(...this.#header.nodes);
    } else {
      const parts = partsOf(item);
      const [only] = parts;
      if (parts.length === 1 && typeof only === "string") {
        setData(this.#plain, only);
        nodes.push(this.#plain);
      } else {
        nodes.push(...parts.map((part) => (typeof part === "string" ? new Text(part) : part)));
      }
    }
    // The same line, read again, must not take away what somebody is about to click or has selected.
    if (!looksLike(this.#text, nodes)) this.#text.replaceChildren(...nodes);
    const isBoxed = nodes.some(({ textContent }) => textContent !== null && NEEDS_BOX.test(textContent));
    if (isBoxed !== this.#isBoxed) this.#text.className = isBoxed ? "text isBoxed" : "text";
    this.#isBoxed = isBoxed;
  }

  #toggle(): void {
    if (this.#item !== null) this.#actions.toggle(this.#item);
  }

  #onClick(event: MouseEvent): void {
    if (event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const row = this.#item?.row;
    if (row !== undefined && row.kind !== "gap") this.#actions.pick(row, event.shiftKey);
  }

  /** Only where somebody points, and again when the pointer moves: this element may show another row by then. */
  #sayInstant(): void {
    const row = this.#item?.row;
    if (row !== undefined && row.kind !== "gap") this.#time.title = formatInstant(row.timeUs, this.#style?.timestamps);
  }
}

function classesOf({ row, decoration, apartPx, isTarget }: RowItem, { wraps }: RowStyle): string {
  const { note, isCloser } = decoration;
  let classes = `log-row ${row.kind}`;
  if (row.kind === "line" && row.channel === Channel.STDERR) classes += " stderr";
  if (wraps) classes += " wraps";
  if (isTarget) classes += " isTarget";
  if (isCloser) classes += " isCloser";
  if (note?.severity === "error") classes += " isError";
  if (note?.severity === "warning") classes += " isWarning";
  if (apartPx !== null) classes += " isApart";
  return classes;
}

/** Names the parts of a gutter. */
function gutterOf({ row, tag }: RowItem, { timestamps }: RowStyle): number {
  return (tag === null ? 0 : 1) + (row.kind === "gap" ? 2 : 0) + (timestamps === "off" ? 4 : 0);
}

/** Whether the text has to be made anew; what a header says of its group it changes by itself. */
function isOther(before: RowItem, after: RowItem): boolean {
  return (
    before.row !== after.row ||
    before.placeLink !== after.placeLink ||
    before.decoration.depth !== after.decoration.depth ||
    before.decoration.note !== after.decoration.note ||
    before.decoration.header?.group !== after.decoration.header?.group
  );
}

/** What stands in the text of a row that is not the header of a group. */
function partsOf({ row, decoration, placeLink }: RowItem): (string | HTMLElement)[] {
  if (row.kind === "gap") return [`Lines s${row.sequence} to s${row.nextSequence - 1} are missing${row.message ? `: ${row.message}` : ""}`];
  if (row.kind === "notice") return [rowText(row)];
  if (decoration.note !== null) return noteParts(decoration.note, placeLink);
  return [...piecesOf(parsed(row), placeLink).map(pieceNode), ...cutParts(row)];
}

function looksLike(element: HTMLElement, nodes: readonly Node[]): boolean {
  const { childNodes } = element;
  return childNodes.length === nodes.length && nodes.every((node, at) => node === childNodes[at] || node.isEqualNode(childNodes[at] ?? null));
}

function pieceNode({ text, style, href }: Piece): string | HTMLElement {
  const { classes, foreground, background } = paintOf(style);
  if (href === null && classes === "") return text;
  const node = href === null ? make("span", `span ${classes}`, text) : makeLink(`span link ${classes}`, href, text);
  if (foreground !== undefined) node.style.setProperty("--span-foreground", foreground);
  if (background !== undefined) node.style.setProperty("--span-background", background);
  return node;
}

/** An annotation: how bad it is, what it says, and the place that it names. */
function noteParts(note: Note, placeLink: PlaceLink | null): (string | HTMLElement)[] {
  const parts = [make("b", `badge ${note.severity}`, note.severity), note.message];
  if (note.file === undefined) return parts;
  const text = [note.file, note.line, note.column].filter((part) => part !== undefined).join(":");
  const href = placeLink?.(note.file, note.line ?? 1, note.column ?? null) ?? null;
  return [...parts, href === null ? make("span", "place", text) : makeLink("place", href, text)];
}

/** Says that a row has more text than is painted. */
function cutParts(row: LineRow): HTMLElement[] {
  const cut = cutBytes(row);
  if (cut > 0) return [make("em", "hidden", `${formatBytes(cut)} more, in the download`)];
  const { hiddenCharacters } = parsed(row);
  return hiddenCharacters > 0 ? [make("em", "hidden", `${formatCount(hiddenCharacters)} characters more, in the download`)] : [];
}

function make(name: "b" | "em" | "i" | "span", classes: string, text = ""): HTMLElement {
  const element = document.createElement(name);
  element.className = classes;
  element.textContent = text;
  return element;
}

function makeLink(classes: string, href: string, text: string): HTMLElement {
  const link = document.createElement("a");
  link.className = classes;
  link.href = href;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  link.textContent = text;
  return link;
}

/** What stays as it is costs nothing. */
function setData(node: Text, value: string): void {
  if (node.data !== value) node.data = value;
}
