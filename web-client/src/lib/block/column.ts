/**
 * Columns of a block: pairs of base-128 varints, a value and the number of consecutive lines it holds
 * for (block.proto).
 */

/** A block that breaks the format; the message names what is wrong. */
export class BlockError extends Error {
  override name = "BlockError";
}

/** Reads one column line by line; an empty column yields its default for ever. */
export class ColumnReader {
  readonly #bytes: Uint8Array;
  readonly #name: string;
  readonly #fallback: number;
  #at = 0;
  #value = 0;
  #left = 0;

  constructor(bytes: Uint8Array, name: string, fallback = 0) {
    this.#bytes = bytes;
    this.#name = name;
    this.#fallback = fallback;
  }

  /** The value of the next line. Throws BlockError when the column ends early or is malformed. */
  next(): number {
    if (this.#bytes.length === 0) return this.#fallback;
    if (this.#left === 0) {
      this.#value = this.#varint();
      this.#left = this.#varint();
      if (this.#left === 0) throw new BlockError(`column ${this.#name}: a run of 0 lines`);
    }
    this.#left -= 1;
    return this.#value;
  }

  /** Checks that the column holds nothing beyond the lines that were read. */
  finish(): void {
    if (this.#left !== 0 || this.#at !== this.#bytes.length) {
      throw new BlockError(`column ${this.#name}: covers more lines than the block has`);
    }
  }

  #varint(): number {
    let value = 0;
    // Multiplication, not shifts: times and sequences need more than 32 bits.
    for (let scale = 1; scale <= 2 ** 49; scale *= 128) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) throw new BlockError(`column ${this.#name}: ends within a number`);
      this.#at += 1;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
    }
    throw new BlockError(`column ${this.#name}: a number above 2^53`);
  }
}

/** Undoes the zigzag coding of signed values. */
export function unzigzag(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
}
