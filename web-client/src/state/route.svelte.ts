/** What the address bar says is in view, and the ways to change it. */
import type { LineTarget } from "../lib/feed/feed";
import { formatHash, formatPath, MAX_STREAMS, parseLocation, type View } from "../lib/location";

export class Route {
  #view = $state.raw<View>(parseLocation(location.pathname, location.hash));

  get view(): View {
    return this.#view;
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

  show(streamIds: readonly number[]): void {
    this.#view = { streamIds: streamIds.slice(0, MAX_STREAMS), target: null };
    history.pushState(null, "", formatPath(this.#view.streamIds));
  }

  toggle(streamId: number): void {
    const ids = this.#view.streamIds;
    this.show(ids.includes(streamId) ? ids.filter((id) => id !== streamId) : [...ids, streamId]);
  }

  /** Points at a line, or at none. The page's history is not filled with lines. */
  pointAt(target: LineTarget | null): void {
    this.#view = { streamIds: this.#view.streamIds, target };
    history.replaceState(null, "", this.link(target));
  }

  link(target: LineTarget | null): string {
    const { streamIds } = this.#view;
    return `${formatPath(streamIds)}${formatHash({ streamIds, target })}`;
  }
}
