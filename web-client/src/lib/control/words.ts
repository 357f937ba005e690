/**
 * A command as a person types it, and as the system gets it: words. Quotes and backslashes group and escape as in
 * a shell; nothing else of a shell exists here (no variables, no globs, no pipes), because no shell will see it.
 */

/** What was typed, cut into words, or where it stops making sense. */
export type Words = { readonly words: readonly string[] } | { readonly problem: string };

export function splitWords(text: string): Words {
  const words: string[] = [];
  let word: string | null = null;
  let quote: '"' | "'" | null = null;
  for (let at = 0; at < text.length; at++) {
    const character = text.charAt(at);
    if (quote === "'") {
      if (character === "'") quote = null;
      else word = (word ?? "") + character;
    } else if (character === "\\") {
      const next = text.charAt(at + 1);
      if (next === "") return { problem: "nothing follows the last backslash" };
      // Between double quotes a backslash is one unless it escapes a quote or itself.
      word = (word ?? "") + (quote === '"' && next !== '"' && next !== "\\" ? `\\${next}` : next);
      at += 1;
    } else if (quote === '"') {
      if (character === '"') quote = null;
      else word = (word ?? "") + character;
    } else if (character === "'" || character === '"') {
      quote = character;
      word ??= "";
    } else if (/\s/.test(character)) {
      if (word !== null) words.push(word);
      word = null;
    } else {
      word = (word ?? "") + character;
    }
  }
  if (quote !== null) return { problem: `a ${quote} is not closed` };
  if (word !== null) words.push(word);
  if (words[0] === "") return { problem: "the program has no name" };
  return { words };
}

/** Words as somebody would type them; `splitWords` gives the same words again. */
export function joinWords(words: readonly string[]): string {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}
