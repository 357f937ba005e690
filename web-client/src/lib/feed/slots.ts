/**
 * Which painted element shows which row. A row keeps its element as long as it is in view, so that a selection in it
 * lives; a row that comes into view gets the element of one that left it, so that following at full speed makes none.
 */
export class Slots {
  #byKey = new Map<string, number>();
  #count = 0;

  /** A number for each key, in their order; the same key has the same number as the last time. */
  assign(keys: readonly string[]): number[] {
    const next = new Map<string, number>();
    const taken = new Set<number>();
    for (const key of keys) {
      const slot = this.#byKey.get(key);
      if (slot === undefined) continue;
      next.set(key, slot);
      taken.add(slot);
    }
    const free: number[] = [];
    for (const slot of this.#byKey.values()) if (!taken.has(slot)) free.push(slot);
    free.reverse();
    const slots = keys.map((key) => {
      let slot = next.get(key);
      if (slot === undefined) {
        slot = free.pop() ?? (this.#count += 1);
        next.set(key, slot);
      }
      return slot;
    });
    this.#byKey = next;
    return slots;
  }
}
