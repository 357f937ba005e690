/** Joins changes that come many times a second into one repaint a frame. */
export class Painted {
  /** Read it where something has to be painted anew. */
  frame = $state(0);
  #request = 0;

  readonly touch = (): void => {
    if (this.#request !== 0) return;
    this.#request = requestAnimationFrame(() => {
      this.#request = 0;
      this.frame += 1;
    });
  };

  stop(): void {
    cancelAnimationFrame(this.#request);
    this.#request = 0;
  }
}
