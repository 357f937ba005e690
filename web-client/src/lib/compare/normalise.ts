/**
 * What is left of a line when what differs from run to run by nature is taken out: times, spans, sizes,
 * ids, hashes, and where on the disk a file lies. Lines with the same rest count as the same.
 */

/** Text that is looked at, characters; what follows counts as it is. */
const MAX_CHARACTERS = 4_096;

/** In order: what comes first wins. Each is linear: no part can match the same text in two ways. */
const RULES: readonly (readonly [RegExp, string])[] = [
  // 2026-11-24T09:30:01.123Z, 2026-11-24 09:30:01,123 +0000
  [/\b\d{4}[-/]\d{2}[-/]\d{2}[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?/g, "‹time›"],
  // Tue Nov 24 09:30:01 UTC 2026, Nov 24 09:30:01
  [/\b(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) {1,2}\d{1,2}(?: \d{2}:\d{2}:\d{2})?(?: [A-Z]{3,4})?(?:,? \d{4})?\b/g, "‹time›"],
  [/\b\d{4}-\d{2}-\d{2}\b/g, "‹time›"],
  [/\b\d{1,2}:\d{2}:\d{2}(?:[.,]\d{1,9})?\b/g, "‹time›"],
  [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/gi, "‹id›"],
  [/\b0x[0-9a-f]+\b/gi, "‹id›"],
  // A hash has figures and letters; "deadbeef" and "1234567" may be a word and a count.
  [/\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,64}\b/gi, "‹id›"],
  // An absolute path keeps its last name: which file it is does matter.
  [/(?<![\w.:/\\])(?:\/[\w.@+~-]+)+(?=\/)/g, "‹path›"],
  [/\b[A-Za-z]:(?:\\[\w.@+~-]+)+(?=\\)/g, "‹path›"],
  [/\b\d+(?:\.\d+)? ?(?:[kKMGT]i?B|bytes?|[kKMGT]?B)(?:\/s)?\b/g, "‹size›"],
  // 3m 12.4s, 12.5 ms, 4 seconds, in 0.31s
  [/\b\d+(?:\.\d+)? ?(?:ns|[µu]s|ms|s|sec|secs|seconds?|m|min|mins|minutes?|h|hours?)\b(?: ?\d+(?:\.\d+)? ?(?:ms|s|m|min)\b)*/g, "‹span›"],
  [/\b\d+(?:\.\d+)? ?%/g, "‹share›"],
  // [12/345]: with several jobs at once the number belongs to whoever came first.
  [/\[ *\d+ *\/ *\d+ *\]/g, "[‹n›/‹n›]"],
  [/\b(pid|PID|process|thread|port)([ =:#]{1,2})\d+\b/g, "$1$2‹n›"],
  [/\[\d+\]/g, "[‹n›]"],
  [/\b\d{5,}\b/g, "‹n›"],
];

export function normalise(text: string): string {
  let rest = text.slice(0, MAX_CHARACTERS);
  for (const [pattern, by] of RULES) rest = rest.replace(pattern, by);
  return `${rest}${text.slice(MAX_CHARACTERS)}`.trimEnd();
}
