/** The header of a group: opens and closes it, and says what it holds. */
import type { Header } from "../lib/feed/decoration";
import { formatLines, formatSpan } from "../lib/text/format";

export class HeaderElement {
  /** Both stand in a row's text. */
  readonly nodes: readonly [HTMLButtonElement, HTMLElement];
  readonly #button = document.createElement("button");
  readonly #title = fact("title");
  readonly #errors = fact("errors", "group-errors");
  readonly #warnings = fact("warnings");
  readonly #lines = fact("lines");
  readonly #duration = fact("duration", "group-duration");
  readonly #facts = document.createElement("span");
  #header: Header | null = null;

  constructor(toggle: () => void) {
    this.#button.className = "group-header";
    this.#button.dataset["testid"] = "group";
    this.#button.append(fact("chevron"), this.#title);
    this.#button.addEventListener("click", toggle);
    this.#facts.className = "facts";
    this.nodes = [this.#button, this.#facts];
  }

  show(header: Header): void {
    const before = this.#header;
    this.#header = header;
    if (before !== null && isSame(before, header)) return;
    const { title, isFolded, canFold, errors, warnings } = header;
    this.#button.setAttribute("aria-expanded", String(!isFolded));
    this.#button.disabled = !canFold;
    this.#button.dataset["folded"] = String(isFolded);
    this.#button.dataset["errors"] = String(errors);
    this.#button.title = !canFold ? "This group has not ended yet" : isFolded ? "Show the lines of this group" : "Hide the lines of this group";
    this.#title.textContent = title;
    this.#errors.textContent = formatLines(errors, "error");
    this.#warnings.textContent = formatLines(warnings, "warning");
    this.#lines.textContent = formatLines(header.lines);
    const duration = header.isOpenEnded ? "running" : header.durationMs === null ? "" : formatSpan(header.durationMs);
    this.#duration.textContent = duration;
    const facts: HTMLElement[] = [];
    if (errors > 0) facts.push(this.#errors);
    if (warnings > 0) facts.push(this.#warnings);
    if (isFolded) facts.push(this.#lines);
    if (duration !== "") facts.push(this.#duration);
    this.#facts.replaceChildren(...facts);
  }
}

function isSame(before: Header, after: Header): boolean {
  return (Object.keys(after) as (keyof Header)[]).every((key) => before[key] === after[key]);
}

function fact(name: string, testid = ""): HTMLElement {
  const element = document.createElement("span");
  element.className = name;
  if (testid !== "") element.dataset["testid"] = testid;
  return element;
}
