/** Shows parts of text that is in the page already, without changing the page: CSS custom highlights. */
import type { Finder } from "../lib/search/highlight";

/** Name in `::highlight(…)`. Panes share it; each adds and takes back its own ranges. */
const NAME = "find-hit";

export class HighlightPainter {
  #ranges: Range[] = [];

  /** Highlights what the finder finds in each of the elements, and nothing else of this painter's. */
  paint(elements: Iterable<Element>, finder: Finder): void {
    const registry = highlights();
    if (registry === null) return;
    this.clear();
    let highlight = registry.get(NAME);
    if (highlight === undefined) {
      highlight = new Highlight();
      registry.set(NAME, highlight);
    }
    for (const element of elements) {
      for (const { from, to } of finder(element.textContent ?? "")) {
        const range = rangeOf(element, from, to);
        if (range === null) continue;
        highlight.add(range);
        this.#ranges.push(range);
      }
    }
  }

  clear(): void {
    const highlight = highlights()?.get(NAME);
    for (const range of this.#ranges) highlight?.delete(range);
    this.#ranges = [];
  }
}

/** Null in a browser that has none: hits are then marked by their rows alone. */
function highlights(): HighlightRegistry | null {
  return typeof CSS !== "undefined" && "highlights" in CSS ? CSS.highlights : null;
}

function rangeOf(element: Element, from: number, to: number): Range | null {
  const range = document.createRange();
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let at = 0;
  let hasStart = false;
  for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
    const length = node.nodeValue?.length ?? 0;
    if (!hasStart && from < at + length) {
      range.setStart(node, from - at);
      hasStart = true;
    }
    if (hasStart && to <= at + length) {
      range.setEnd(node, to - at);
      return range;
    }
    at += length;
  }
  return null;
}
