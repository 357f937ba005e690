/**
 * From a key stroke to what it does. Whoever can do something registers it in a scope: the app's, which
 * always counts, or a pane's, which counts while that pane is the active one and wins over the app's.
 * Knows no browser; `state/keyboard.ts` feeds it.
 */
import { BINDINGS, isSingleKey, type Action } from "./table";

/** What a keyboard event says, as far as it matters here. */
export interface KeyEvent {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
  /** The character was typed with AltGr, which Windows reports as Ctrl and Alt. */
  readonly isAltGraph: boolean;
  /** The event goes to a field that takes text, so that a single key is text. */
  readonly isTyping: boolean;
}

export type Handlers = Partial<Record<Action, () => void>>;

/** `j`, `G`, `{`, `Home`, `Mod+k` (Ctrl or Cmd), `Alt+w`; null for chords that belong to the browser. */
export function strokeOf(event: KeyEvent): string | null {
  if (event.isAltGraph) return event.key;
  const hasModifier = event.ctrlKey || event.metaKey;
  if (event.altKey) return hasModifier ? null : `Alt+${event.key.toLowerCase()}`;
  if (!hasModifier) return event.key;
  return `Mod+${event.key.toLowerCase()}`;
}

const ACTIONS = new Map<string, Action>(BINDINGS.flatMap(({ action, keys }) => keys.map((key) => [key, action] as const)));

/** What some part of the page can do; the newest registration of an action wins. */
export class KeyScope {
  readonly #registered: Handlers[] = [];

  /** Returns how to take it back. */
  on(handlers: Handlers): () => void {
    this.#registered.push(handlers);
    return () => {
      const at = this.#registered.indexOf(handlers);
      if (at >= 0) this.#registered.splice(at, 1);
    };
  }

  find(action: Action): (() => void) | undefined {
    return this.#registered.findLast((handlers) => handlers[action] !== undefined)?.[action];
  }
}

export class KeyDispatcher {
  /** What the whole page can do. */
  readonly app = new KeyScope();
  /** Keys that type a character do something too. */
  singleKeys = true;
  #active: KeyScope | null = null;

  /** Makes a pane's scope the one that counts, or none. */
  activate(scope: KeyScope | null): void {
    this.#active = scope;
  }

  /** The scope is gone. */
  deactivate(scope: KeyScope): void {
    if (this.#active === scope) this.#active = null;
  }

  can(action: Action): boolean {
    return this.#find(action) !== undefined;
  }

  /** Does what the action means; false when nobody can. */
  run(action: Action): boolean {
    const handler = this.#find(action);
    handler?.();
    return handler !== undefined;
  }

  /** Does what the key means; false when it means nothing here and belongs to the browser. */
  handle(event: KeyEvent): boolean {
    const stroke = strokeOf(event);
    if (stroke === null) return false;
    if (event.isTyping && !stroke.startsWith("Mod+")) return false;
    if (isSingleKey(stroke) && !this.singleKeys) return false;
    const action = ACTIONS.get(stroke);
    return action !== undefined && this.run(action);
  }

  #find(action: Action): (() => void) | undefined {
    return this.#active?.find(action) ?? this.app.find(action);
  }
}
