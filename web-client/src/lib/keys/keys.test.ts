import { describe, expect, test } from "vitest";
import { KeyDispatcher, KeyScope, strokeOf, type KeyEvent } from "./dispatcher";
import { BINDINGS, KEY_TABLE, keyLabel, SECTIONS } from "./table";

const press = (key: string, extra: Partial<KeyEvent> = {}): KeyEvent => ({
  key,
  ctrlKey: false,
  metaKey: false,
  altKey: false,
  isAltGraph: false,
  isTyping: false,
  ...extra,
});

describe("the table", () => {
  test("gives each key one meaning and each action one row with words", () => {
    const keys = BINDINGS.flatMap((binding) => binding.keys);
    expect(new Set(keys).size).toBe(keys.length);
    expect(new Set(BINDINGS.map(({ action }) => action)).size).toBe(BINDINGS.length);
    for (const { help, section } of BINDINGS) {
      expect(help).not.toBe("");
      expect(SECTIONS).toContain(section);
    }
  });

  test("has lnav's and GitHub's keys", () => {
    const keys: string[] = KEY_TABLE.flatMap((binding) => [...binding.keys]);
    for (const key of "/ n N e E w W { } g G j k T F ? Alt+w".split(" ")) expect(keys).toContain(key);
  });

  test("names the palette's chord as the keyboard does", () => {
    expect(keyLabel("Mod+k", true)).toBe("⌘ K");
    expect(keyLabel("Mod+k", false)).toBe("Ctrl K");
    expect(keyLabel("Alt+w", false)).toBe("Alt W");
    expect(keyLabel("G", false)).toBe("G");
  });
});

describe("the dispatcher", () => {
  const withLog = (): { keys: KeyDispatcher; did: string[] } => {
    const did: string[] = [];
    const keys = new KeyDispatcher();
    keys.app.on({ help: () => did.push("help"), palette: () => did.push("palette"), "first-line": () => did.push("app first") });
    return { keys, did };
  };

  test("leaves to the browser what nobody can do", () => {
    const { keys, did } = withLog();
    expect(keys.handle(press("n"))).toBe(false);
    expect(keys.handle(press("q"))).toBe(false);
    expect(keys.handle(press("g", { ctrlKey: true }))).toBe(false);
    expect(keys.handle(press("?", { altKey: true }))).toBe(false);
    expect(did).toEqual([]);
  });

  test("asks the active pane first, then the app", () => {
    const { keys, did } = withLog();
    const [left, right] = [new KeyScope(), new KeyScope()];
    left.on({ "first-line": () => did.push("left first") });
    right.on({ "first-line": () => did.push("right first") });
    keys.activate(left);
    keys.handle(press("g"));
    keys.activate(right);
    keys.handle(press("g"));
    keys.handle(press("?"));
    keys.deactivate(left);
    keys.handle(press("Home"));
    keys.deactivate(right);
    keys.handle(press("g"));
    expect(did).toEqual(["left first", "right first", "help", "right first", "app first"]);
  });

  test("lets the newest registration win until it is taken back", () => {
    const { keys, did } = withLog();
    const takeBack = keys.app.on({ help: () => did.push("newer help") });
    keys.handle(press("?"));
    takeBack();
    keys.handle(press("?"));
    expect(did).toEqual(["newer help", "help"]);
  });

  test("takes single keys for text while a person types, but not chords", () => {
    const { keys, did } = withLog();
    expect(keys.handle(press("?", { isTyping: true }))).toBe(false);
    expect(keys.handle(press("Home", { isTyping: true }))).toBe(false);
    expect(keys.handle(press("k", { isTyping: true, metaKey: true }))).toBe(true);
    expect(did).toEqual(["palette"]);
  });

  test("can have its single keys turned off; chords and named keys stay", () => {
    const { keys, did } = withLog();
    keys.singleKeys = false;
    expect(keys.handle(press("?"))).toBe(false);
    expect(keys.handle(press("Home"))).toBe(true);
    expect(keys.handle(press("K", { ctrlKey: true }))).toBe(true);
    expect(did).toEqual(["app first", "palette"]);
  });

  test("knows braces that are typed with AltGr", () => {
    expect(strokeOf(press("{", { ctrlKey: true, altKey: true, isAltGraph: true }))).toBe("{");
    expect(strokeOf(press("{", { ctrlKey: true, altKey: true }))).toBe(null);
    expect(strokeOf(press("w", { altKey: true }))).toBe("Alt+w");
  });
});
