/** What a person chose to see in the overview; it outlives a look at a stream. */
import type { Grouping, SortKey, Wish } from "../lib/catalog/overview";
import type { Standing } from "../lib/catalog/standing";

/** What a first click on a column sorts by: names from A, figures from the largest. */
const FIRST_DESCENDING: Record<SortKey, boolean> = { state: false, name: false, rate: true, lines: true, last: true };

export class OverviewChoice {
  grouping = $state<Grouping>("streams");
  words = $state("");
  standing = $state<Standing | null>(null);
  sort = $state<SortKey>("state");
  descending = $state(false);

  get wish(): Wish {
    const { grouping, words, standing, sort, descending } = this;
    return { grouping, words, standing, sort, descending };
  }

  sortBy(key: SortKey): void {
    this.descending = this.sort === key ? !this.descending : FIRST_DESCENDING[key];
    this.sort = key;
  }

  group(grouping: Grouping): void {
    this.grouping = grouping;
    this.standing = null;
  }
}
