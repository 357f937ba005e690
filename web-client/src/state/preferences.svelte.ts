/** What the reader chose, kept in this browser. */
import type { TimestampMode } from "../lib/text/format";

export type Theme = "system" | "light" | "dark";

const SWITCH = ["on", "off"] as const;
const SWITCH_OFF = ["off", "on"] as const;

const THEMES: readonly Theme[] = ["system", "light", "dark"];
const TIMESTAMPS: readonly TimestampMode[] = ["off", "local", "utc", "start", "delta"];

export class Preferences {
  #theme = $state(load("theme", THEMES));
  #timestamps = $state(load("timestamps", TIMESTAMPS));
  #singleKeys = $state(load("single-keys", SWITCH));
  #wraps = $state(load("wrap", SWITCH_OFF));

  constructor() {
    this.#showTheme();
  }

  get theme(): Theme {
    return this.#theme;
  }

  set theme(theme: Theme) {
    this.#theme = theme;
    save("theme", theme);
    this.#showTheme();
  }

  get timestamps(): TimestampMode {
    return this.#timestamps;
  }

  set timestamps(mode: TimestampMode) {
    this.#timestamps = mode;
    save("timestamps", mode);
  }

  /** The next way to show times, for the key. */
  cycleTimestamps(): void {
    this.timestamps = TIMESTAMPS[(TIMESTAMPS.indexOf(this.#timestamps) + 1) % TIMESTAMPS.length] ?? "off";
  }

  /** Lines that are longer than the view is wide go on below instead of to the right. */
  get wraps(): boolean {
    return this.#wraps === "on";
  }

  set wraps(isOn: boolean) {
    this.#wraps = isOn ? "on" : "off";
    save("wrap", this.#wraps);
  }

  /** Keys that type a character do something. */
  get singleKeys(): boolean {
    return this.#singleKeys === "on";
  }

  set singleKeys(isOn: boolean) {
    this.#singleKeys = isOn ? "on" : "off";
    save("single-keys", this.#singleKeys);
  }

  #showTheme(): void {
    document.documentElement.dataset["theme"] = this.#theme;
  }
}

function load<T extends string>(name: string, allowed: readonly T[]): T {
  const [fallback] = allowed;
  if (fallback === undefined) throw new RangeError(`no values for ${name}`);
  try {
    const stored = localStorage.getItem(`millstream.${name}`);
    return allowed.find((value) => value === stored) ?? fallback;
  } catch {
    // Storage is closed in some private modes; the choice then lasts as long as the page.
    return fallback;
  }
}

function save(name: string, value: string): void {
  try {
    localStorage.setItem(`millstream.${name}`, value);
  } catch {
    // As above.
  }
}
