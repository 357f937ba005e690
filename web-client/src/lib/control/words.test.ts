import fc from "fast-check";
import { expect, test } from "vitest";
import { joinWords, splitWords } from "./words";

test.each([
  ["make -j4 all", ["make", "-j4", "all"]],
  ["  sh -c 'echo \"hi\"; exit 3' ", ["sh", "-c", 'echo "hi"; exit 3']],
  ['a "b c" d\\ e', ["a", "b c", "d e"]],
  ['printf "%s\\n" "\\"x\\""', ["printf", "%s\\n", '"x"']],
  ["touch ''", ["touch", ""]],
  ["", []],
])("%j are the words that a shell would make of it", (text, words) => {
  expect(splitWords(text)).toEqual({ words });
});

test.each(["echo 'x", 'echo "x', "echo \\", "'' x"])("%j says what is wrong", (text) => {
  expect(splitWords(text)).toHaveProperty("problem");
});

test("what a shell would do more is not done", () => {
  expect(splitWords("echo $HOME *.c | sh; `id`")).toEqual({ words: ["echo", "$HOME", "*.c", "|", "sh;", "`id`"] });
});

test("words that were joined are the same when they are split again", () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1 }), fc.array(fc.string()), (program, rest) => {
      const words = [program, ...rest];
      expect(splitWords(joinWords(words))).toEqual({ words });
    }),
  );
});
