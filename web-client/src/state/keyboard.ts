/**
 * The browser's key strokes for the dispatcher, and the way by which components find the scope that they
 * register in:
 *
 *     const keys = paneKeys();                             // inside a pane; keyboard().app: anywhere
 *     $effect(() => keys.on({ "next-hit": showNextHit }));
 */
import { createContext } from "svelte";
import type { KeyDispatcher, KeyScope } from "../lib/keys/dispatcher";

export const [keyboard, provideKeyboard] = createContext<KeyDispatcher>();

/** The scope of the pane that a component is in. Call it while the component is made. */
export const [paneKeys, providePaneKeys] = createContext<KeyScope>();

const TEXT_FIELDS = "input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable=true]";

/** A dialog has the keyboard for itself, but for chords. */
const OWN_KEYS = `${TEXT_FIELDS}, dialog[open]`;

/** Hands a key stroke on, and keeps it from the browser when it meant something. */
export function press(dispatcher: KeyDispatcher, event: KeyboardEvent): void {
  if (event.defaultPrevented || event.isComposing) return;
  const isTyping = event.target instanceof Element && event.target.closest(OWN_KEYS) !== null;
  const { key, ctrlKey, metaKey, altKey } = event;
  const isAltGraph = event.getModifierState("AltGraph");
  if (dispatcher.handle({ key, ctrlKey, metaKey, altKey, isAltGraph, isTyping })) event.preventDefault();
}
