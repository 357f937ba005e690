/**
 * Templates of the relay's configuration that say where sources are shown, such as
 * `https://git.example.com/mill/blob/{label.commit}/{path}#L{line}`. `{path}`, `{line}` and `{column}` come from the
 * log, `{cwd}` and `{label.NAME}` from its stream. The first template that can be filled is taken.
 */
import type { PlaceLink } from "./find";

/** What a template can be filled with beside the place. */
export interface LinkContext {
  readonly labels: Readonly<Record<string, string>>;
  /** Working directory of the run, if the stream has one. */
  readonly cwd: string | undefined;
}

/** Kinds of addresses that show sources and run nothing. The relay refuses others too. */
const SCHEMES = new Set(["http:", "https:", "vscode:", "vscode-insiders:", "vscodium:", "cursor:", "zed:", "idea:", "jetbrains:", "subl:", "txmt:", "mvim:"]);

const FIELD = /\{([\w.-]+)\}/g;

export function placeLinks(templates: readonly string[], context: LinkContext): PlaceLink | null {
  if (templates.length === 0) return null;
  return (path, line, column) => {
    for (const template of templates) {
      const href = fill(template, (name) => {
        switch (name) {
          case "path":
            return path.replaceAll("\\", "/").replace(/^(?:\.\/)+/, "");
          case "line":
            return String(line);
          case "column":
            return String(column ?? 1);
          case "cwd":
            return context.cwd;
          default:
            return name.startsWith("label.") ? context.labels[name.slice("label.".length)] : undefined;
        }
      });
      if (href !== null) return href;
    }
    return null;
  };
}

function fill(template: string, valueOf: (name: string) => string | undefined): string | null {
  let isWhole = true;
  const href = template.replace(FIELD, (_, name: string) => {
    const value = valueOf(name);
    if (value === undefined || value === "") isWhole = false;
    // A path keeps its slashes; everything else of a value is data.
    return encodeURIComponent(value ?? "").replaceAll("%2F", "/").replaceAll("%3A", ":");
  });
  if (!isWhole) return null;
  try {
    return SCHEMES.has(new URL(href).protocol) ? href : null;
  } catch {
    return null;
  }
}
