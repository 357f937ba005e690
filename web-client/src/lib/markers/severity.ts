/**
 * How bad a plain line looks, for logs without markers: by the words with which compilers and tools begin or tag a
 * complaint. It rather misses one than cries wolf ("0 errors", "error.rs" and "--error-format" are none).
 */
import type { Severity } from "./event";

const ERROR = String.raw`(?:^|[\s:\])>"'|\[]|\x1b\[[0-9;]*m)(?:(?:fatal |internal |compile |compiler )?error(?:\[[A-Z]+[0-9]+\])?|fatal|panic|ERROR|FATAL|CRITICAL|Error|FAILED|[A-Za-z.]{0,80}[A-Z][a-z]{1,40}(?:Error|Exception))(?::|!|[ \t]*\||\]|\x1b\[)|^(?:FAILED |FAIL[: \t]|npm (?:ERR!|error) |E {3}\S|make(?:\[[0-9]+\])?: \*\*\* |Traceback \(most recent call last\):|thread '[^']*' panicked)|\bERROR\b(?:\s|\[|\x1b)`;
const WARNING = String.raw`(?:^|[\s:\])>"'|\[]|\x1b\[[0-9;]*m)(?:warning(?:\[[A-Za-z:-]+\])?|WARNING|WARN|Warning|[A-Z][A-Za-z]+Warning)(?::|!|[ \t]*\||\]|\x1b\[)|^npm (?:WARN|warn) |\bWARN(?:ING)?\b\s`;

/** Selects lines that look like errors; same syntax as `CANDIDATES`. */
export const ERROR_LINES = ERROR;

const errorPattern = new RegExp(ERROR);
const warningPattern = new RegExp(WARNING);

/** Of the text of a line, with or without its colours. */
export function severityOf(text: string): Exclude<Severity, "notice"> | null {
  if (errorPattern.test(text)) return "error";
  return warningPattern.test(text) ? "warning" : null;
}
