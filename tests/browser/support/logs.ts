// Inputs made from the recorded builds in tests/data.
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { repository } from "./binaries.ts";

const recorded = readFileSync(join(repository, "tests/data/cpython-build-1.log"), "utf8")
  .split("\n")
  .filter((line) => line.trim() !== "");

/** Line `number` of the generated streams: a recorded line after its own number. */
export function numberedLine(number: number): string {
  return `${number}: ${recorded[number % recorded.length]}`;
}

/** Generated lines from `from` up to, not including, `to`. */
export function numberedLines(from: number, to: number): string {
  let text = "";
  for (let number = from; number < to; number += 1) {
    text += `${numberedLine(number)}\n`;
  }
  return text;
}
