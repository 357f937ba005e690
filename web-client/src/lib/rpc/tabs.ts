/** How many tabs of these pages are open in this browser, as far as they answer each other. */

type Word = { readonly kind: "hello" | "here" | "bye"; readonly id: string };

export class OpenTabs {
  readonly #id = crypto.getRandomValues(new Uint32Array(2)).join("-");
  readonly #others = new Set<string>();
  readonly #channel: BroadcastChannel;
  readonly #changed: (count: number) => void;

  /** `changed` is called with the number of tabs, this one included, whenever it changes. */
  constructor(changed: (count: number) => void) {
    this.#changed = changed;
    this.#channel = new BroadcastChannel("millstream-tabs");
    this.#channel.onmessage = (event) => this.#hear(event.data as Word);
    this.#say("hello");
  }

  close(): void {
    this.#say("bye");
    this.#channel.close();
  }

  #hear({ kind, id }: Word): void {
    if (kind === "bye") this.#others.delete(id);
    else this.#others.add(id);
    if (kind === "hello") this.#say("here");
    this.#changed(this.#others.size + 1);
  }

  #say(kind: Word["kind"]): void {
    this.#channel.postMessage({ kind, id: this.#id } satisfies Word);
  }
}
