/**
 * GitLab's collapsible sections: `section_start:UNIX_TIME:NAME[collapsed=true]\r\e[0KHEADER` and
 * `section_end:UNIX_TIME:NAME\r\e[0K` ("CI/CD job logs", docs.gitlab.com). No newline is needed between an end and
 * the next start, so that one line may hold several.
 */
import { plain, type MarkerEvent } from "./event";

const SECTION = /section_(start|end):(\d{1,12}):([\w.-]+)(?:\[([^\]\r\n]*)\])?(?:\r(?:\x1b\[0?K)?|$)/g;

export function readGitLab(line: string): MarkerEvent[] {
  if (!line.includes("section_")) return [];
  const found = [...line.matchAll(SECTION)];
  return found.map((match, at) => {
    const [whole, edge, seconds, name = "", options = ""] = match;
    const timeMs = Number(seconds) * 1_000;
    if (edge === "end") return { kind: "close", family: "gitlab", key: name, flow: "", timeMs };
    const header = plain(line.slice(match.index + whole.length, found[at + 1]?.index));
    return { kind: "open", family: "gitlab", key: name, title: header || name.replaceAll("_", " "), collapsed: /(?:^|,)\s*collapsed=true/.test(options), flow: "", timeMs };
  });
}
