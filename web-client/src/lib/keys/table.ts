/**
 * Every key of the pages: which action it means and how the help sheet words it. What an action does is
 * registered elsewhere (`dispatcher.ts`); a key that stands here and nowhere is registered does nothing.
 *
 * The letters are those of lnav and less where these have one, and GitHub's for the log pages (T, F, ?).
 */

export interface KeyBinding {
  readonly action: string;
  /** As `strokeOf` names them; the first is the one that the help sheet shows first. */
  readonly keys: readonly string[];
  readonly help: string;
  readonly section: Section;
}

export type Section = "Move" | "Find" | "View" | "Everywhere";

export const SECTIONS: readonly Section[] = ["Move", "Find", "View", "Everywhere"];

export const KEY_TABLE = [
  { action: "line-down", keys: ["j"], help: "One line down", section: "Move" },
  { action: "line-up", keys: ["k"], help: "One line up", section: "Move" },
  { action: "first-line", keys: ["g", "Home"], help: "First line", section: "Move" },
  { action: "last-line", keys: ["G", "End"], help: "Last line, and follow", section: "Move" },
  { action: "next-group", keys: ["}"], help: "Next group", section: "Move" },
  { action: "previous-group", keys: ["{"], help: "Previous group", section: "Move" },
  { action: "toggle-group", keys: ["z"], help: "Fold or unfold the group at the top", section: "Move" },
  { action: "go-to", keys: [":"], help: "Go to a line, time or percentage", section: "Move" },

  { action: "find", keys: ["/"], help: "Find in the whole stream", section: "Find" },
  { action: "next-hit", keys: ["n"], help: "Next hit", section: "Find" },
  { action: "previous-hit", keys: ["N"], help: "Previous hit", section: "Find" },
  { action: "toggle-filter", keys: ["&"], help: "Show hits only, or all lines", section: "Find" },
  { action: "next-error", keys: ["e"], help: "Next error", section: "Find" },
  { action: "previous-error", keys: ["E"], help: "Previous error", section: "Find" },
  { action: "next-warning", keys: ["w"], help: "Next warning", section: "Find" },
  { action: "previous-warning", keys: ["W"], help: "Previous warning", section: "Find" },
  { action: "next-slow-down", keys: ["s"], help: "Next slow-down", section: "Find" },
  { action: "previous-slow-down", keys: ["S"], help: "Previous slow-down", section: "Find" },

  { action: "toggle-follow", keys: ["f"], help: "Follow, or pause", section: "View" },
  { action: "times", keys: ["T"], help: "Times: none, local, UTC, since the start, since the line before", section: "View" },
  { action: "wrap", keys: ["Z", "Alt+w"], help: "Wrap long lines, or not", section: "View" },
  { action: "full-screen", keys: ["F"], help: "Log only, without the side bar", section: "View" },
  { action: "next-pane", keys: ["]"], help: "Next pane", section: "View" },
  { action: "previous-pane", keys: ["["], help: "Previous pane", section: "View" },
  { action: "close-pane", keys: ["x"], help: "Close this pane", section: "View" },
  { action: "compare", keys: ["c"], help: "Compare with the last good run", section: "View" },

  { action: "palette", keys: ["Mod+k"], help: "Search streams, hosts and actions", section: "Everywhere" },
  { action: "overview", keys: ["o"], help: "Overview of everything", section: "Everywhere" },
  { action: "help", keys: ["?"], help: "This sheet", section: "Everywhere" },
  { action: "let-go", keys: ["Escape"], help: "Close, or let go of what is chosen", section: "Everywhere" },
] as const satisfies readonly KeyBinding[];

export type Action = (typeof KEY_TABLE)[number]["action"];

/** The table as it reads for code that does not care which actions there are. */
export const BINDINGS: readonly (KeyBinding & { readonly action: Action })[] = KEY_TABLE;

/** A key that types a character when pressed alone: those can be turned off. */
export function isSingleKey(key: string): boolean {
  return key.length === 1;
}

/** How the help sheet prints a key. */
export function keyLabel(key: string, isMac: boolean): string {
  return key.replace("Mod+k", isMac ? "⌘ K" : "Ctrl K").replace("Alt+w", isMac ? "⌥ W" : "Alt W").replace("Escape", "Esc");
}

/** The first key of an action, for tool tips. */
export function keyOf(action: Action): string {
  return BINDINGS.find((binding) => binding.action === action)?.keys[0] ?? "";
}
