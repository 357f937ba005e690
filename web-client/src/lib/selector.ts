/** Builds label selectors (log.proto) from labels that a person picked. */

/** A selector for exactly these label values; null where one cannot be written as an exact value. */
export function selectorFor(labels: ReadonlyMap<string, string>): string | null {
  const requirements: string[] = [];
  for (const [name, value] of labels) {
    // `*` and `?` are globs and a quote has no escape: such a value would select something else.
    if (value === "" || /["*?\n]/.test(value)) return null;
    requirements.push(`${name}=${/[\s,()=!']/.test(value) ? `"${value}"` : value}`);
  }
  return requirements.join(",");
}

/** The command that follows the same streams in a terminal; quoted for a POSIX shell. */
export function tailCommand(selector: string): string {
  return /^[A-Za-z0-9_=,./:@%+-]+$/.test(selector)
    ? `millstream tail ${selector}`
    : `millstream tail '${selector.replaceAll("'", `'\\''`)}'`;
}
