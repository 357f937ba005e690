/** What the address bar says is in view, which pane is the active one, and the ways to change both. */
import type { LineTarget } from "../lib/feed/feed";
import { formatHash, formatPath, OVERVIEW, paneList, parseLocation, type Comparison, type Panes, type View } from "../lib/location";
import { formatFind, parseFind } from "../lib/search/query";

export class Route {
  #view = $state.raw<View>(parseLocation(location.pathname, location.hash));
  #active = $state(0);

  get view(): View {
    return this.#view;
  }

  /** Index of the pane that keys and the side bar speak to. */
  get active(): number {
    return Math.min(this.#active, Math.max(0, this.#view.panes.length - 1));
  }

  /** Streams of the active pane. */
  get activeStreams(): readonly number[] {
    return this.#view.panes[this.active] ?? [];
  }

  /** Follows the browser's own navigation until the returned function is called. */
  listen(): () => void {
    const read = (): void => {
      this.#view = parseLocation(location.pathname, location.hash);
    };
    addEventListener("popstate", read);
    addEventListener("hashchange", read);
    return () => {
      removeEventListener("popstate", read);
      removeEventListener("hashchange", read);
    };
  }

  activate(pane: number): void {
    this.#active = pane;
  }

  /** Shows streams in the active pane, merged by time; no streams: the overview. */
  show(streamIds: readonly number[]): void {
    if (streamIds.length === 0) this.#go(OVERVIEW);
    else this.#showPanes(this.#view.panes.length === 0 ? [streamIds] : this.#view.panes.with(this.active, streamIds));
  }

  /** Shows a stream where one of `others` is shown alone, and in the active pane where none is. */
  showInsteadOf(others: ReadonlySet<number>, streamId: number): void {
    const pane = this.#view.panes.findIndex(([only, ...more]) => only !== undefined && more.length === 0 && others.has(only));
    if (pane < 0) this.show([streamId]);
    else this.#showPanes(this.#view.panes.with(pane, [streamId]));
  }

  /** Adds a stream to the active pane, or takes it away. */
  toggle(streamId: number): void {
    const ids = this.activeStreams;
    const rest = ids.filter((id) => id !== streamId);
    if (rest.length === ids.length) this.show([...ids, streamId]);
    else if (rest.length > 0) this.show(rest);
    else this.closePane(this.active);
  }

  /** Shows streams in a pane of their own, beside the others. */
  showBeside(streamIds: readonly number[]): void {
    const count = this.#view.panes.length;
    this.#showPanes([...this.#view.panes, streamIds]);
    this.#active = Math.min(count, this.#view.panes.length - 1);
  }

  closePane(pane: number): void {
    const before = this.active;
    this.#showPanes(this.#view.panes.filter((_, at) => at !== pane));
    this.#active = pane < before ? before - 1 : Math.min(before, Math.max(0, this.#view.panes.length - 1));
  }

  compare(comparison: Comparison): void {
    this.#go({ ...OVERVIEW, comparison });
  }

  /** Points at a line, or at none. The page's history is not filled with lines. */
  pointAt(target: LineTarget | null): void {
    this.#view = { ...this.#view, target };
    history.replaceState(null, "", this.link(target));
  }

  /** Shows a stream at one of its lines, in the active pane. */
  showLine(target: LineTarget): void {
    const panes = this.#view.panes.length === 0 ? [[target.streamId]] : this.#view.panes.with(this.active, [target.streamId]);
    this.#go({ panes, comparison: null, target });
  }

  link(target: LineTarget | null): string {
    return this.linker()(target);
  }

  /** `link` for many lines of what is in view now. */
  linker(): (target: LineTarget | null) => string {
    const { panes, comparison } = this.#view;
    // What is searched belongs to the link; whatever else stands in the address does not.
    const start = `${formatPath({ panes, comparison })}${formatFind(parseFind(location.search))}`;
    return (target) => `${start}${formatHash({ panes, target })}`;
  }

  #showPanes(panes: Panes): void {
    this.#go({ ...OVERVIEW, panes: paneList(panes) });
  }

  #go(view: View): void {
    this.#view = view;
    history.pushState(null, "", `${formatPath(view)}${formatHash(view)}`);
  }
}
