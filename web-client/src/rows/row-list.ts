/** The painted rows of a view, in their order. */
import type { Row } from "../lib/feed/row";
import { Slots } from "../lib/feed/slots";
import { RowElement, type RowActions, type RowItem, type RowStyle } from "./row-element";

export class RowList {
  readonly #parent: HTMLElement;
  readonly #actions: RowActions;
  readonly #slots = new Slots();
  #elements = new Map<number, RowElement>();

  constructor(parent: HTMLElement, actions: RowActions) {
    this.#parent = parent;
    this.#actions = actions;
  }

  /** Shows these rows. One that was shown before keeps its element; the others get those of rows that went. */
  show(items: readonly RowItem[], style: RowStyle): void {
    const slots = this.#slots.assign(items.map(({ row }) => row.key));
    const before = this.#elements;
    this.#elements = new Map();
    let next = this.#parent.firstElementChild;
    for (const [at, item] of items.entries()) {
      const slot = slots[at] ?? at;
      const row = before.get(slot) ?? new RowElement(this.#actions);
      before.delete(slot);
      this.#elements.set(slot, row);
      const { element } = row;
      // Rows that stay stand where they stood: the others move around them.
      const stays = row.row?.key === item.row.key && isBehind(element, next);
      row.show(item, style);
      if (stays || element === next) next = element.nextElementSibling;
      else this.#parent.insertBefore(element, next);
    }
    for (const { element } of before.values()) element.remove();
  }

  /** The row that an element is part of. */
  rowOf(node: Node): Row | null {
    for (const { element, row } of this.#elements.values()) if (element.contains(node)) return row;
    return null;
  }
}

/** Whether an element is `first` or one of those behind it. */
function isBehind(element: Element, first: Element | null): boolean {
  for (let each = first; each !== null; each = each.nextElementSibling) if (each === element) return true;
  return false;
}
