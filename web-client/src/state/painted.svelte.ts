/** Joins changes that come many times a second into one repaint a frame, or less often. */
export class Painted {
  /** Read it where something has to be painted anew. */
  frame = $state(0);
  readonly #everyMs: number;
  #request = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #paintedMs = 0;

  /** Paints once in `everyMs` at most; 0: every frame. */
  constructor(everyMs = 0) {
    this.#everyMs = everyMs;
  }

  readonly touch = (): void => {
    if (this.#request !== 0 || this.#timer !== undefined) return;
    const waitMs = this.#paintedMs + this.#everyMs - performance.now();
    if (this.#everyMs === 0 || waitMs <= 0) this.#paint();
    else this.#timer = setTimeout(() => this.#paint(), waitMs);
  };

  stop(): void {
    clearTimeout(this.#timer);
    cancelAnimationFrame(this.#request);
    this.#timer = undefined;
    this.#request = 0;
  }

  #paint(): void {
    this.#timer = undefined;
    this.#request = requestAnimationFrame(() => {
      this.#request = 0;
      this.#paintedMs = performance.now();
      this.frame += 1;
    });
  }
}
