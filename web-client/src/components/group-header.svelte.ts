/** Puts the header of a group into an element that no component made. */
import { mount, unmount } from "svelte";
import type { Header } from "../lib/feed/decoration";
import type { MountedHeader } from "../rows/row-element";
import GroupHeader from "./GroupHeader.svelte";

export function mountHeader(target: HTMLElement, header: Header, ontoggle: () => void): MountedHeader {
  let shown = $state.raw(header);
  const props = {
    get header() {
      return shown;
    },
    ontoggle,
  };
  const component = mount(GroupHeader, { target, props });
  return {
    show: (next) => (shown = next),
    remove: () => void unmount(component),
  };
}
