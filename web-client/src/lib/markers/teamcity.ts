/**
 * TeamCity's service messages: `##teamcity[name key='value' …]` or `##teamcity[name 'value']`, values with `|` as
 * escape, and `flowId` where outputs interleave ("Service messages", jetbrains.com/help/teamcity). A message may
 * follow other text in its line.
 */
import { plain, type MarkerEvent } from "./event";

const MESSAGE = /##teamcity\[([A-Za-z][\w-]*)((?:\s+(?:[A-Za-z][\w-]*\s*=\s*)?'(?:[^'|]|\|.)*')*)\s*\]/s;
const ATTRIBUTE = /(?:([A-Za-z][\w-]*)\s*=\s*)?'((?:[^'|]|\|.)*)'/gs;

export function readTeamCity(line: string): MarkerEvent | null {
  const message = line.includes("##teamcity[") ? MESSAGE.exec(line) : null;
  if (message === null) return null;
  const values = new Map<string, string>();
  for (const [, name = "", value = ""] of (message[2] ?? "").matchAll(ATTRIBUTE)) values.set(name, unescape(value));
  const of = (name: string): string => values.get(name) ?? "";
  const flow = of("flowId");
  const timeMs = time(of("timestamp"));
  const open = (key: string, title: string): MarkerEvent => ({ kind: "open", family: "teamcity", key, title: plain(title), collapsed: false, flow, timeMs });
  const close = (key: string, durationMs?: number): MarkerEvent => ({ kind: "close", family: "teamcity", key, flow, timeMs, durationMs });
  const error = (text: string): MarkerEvent => ({ kind: "remark", remark: { severity: "error", message: plain(text) } });

  switch (message[1]) {
    case "blockOpened":
      return open(`block ${of("name")}`, of("description") ? `${of("name")}: ${of("description")}` : of("name"));
    case "blockClosed":
      return close(`block ${of("name")}`);
    case "compilationStarted":
      return open(`compilation ${of("compiler")}`, `Compiling with ${of("compiler")}`);
    case "compilationFinished":
      return close(`compilation ${of("compiler")}`);
    case "testSuiteStarted":
      return open(`suite ${of("name")}`, of("name"));
    case "testSuiteFinished":
      return close(`suite ${of("name")}`);
    case "testStarted":
      return open(`test ${of("name")}`, of("name"));
    case "testFinished":
      return close(`test ${of("name")}`, /^\d{1,12}$/.test(of("duration")) ? Number(of("duration")) : undefined);
    case "testFailed":
      return error(`${of("name")}: ${of("message")}`);
    case "buildProblem":
      return error(of("description"));
    case "buildStatus":
      return of("status") === "FAILURE" ? error(of("text") || "The build failed") : null;
    case "message":
      if (of("status") === "ERROR" || of("status") === "FAILURE") return error(of("text"));
      if (of("status") === "WARNING") return { kind: "remark", remark: { severity: "warning", message: plain(of("text")) } };
      return null;
    case "progressMessage":
    case "progressStart":
    case "progressFinish":
      return { kind: "progress", fraction: null, text: plain(of("") || of("message")) };
    case "flowStarted":
      return { kind: "flow", flow, parent: of("parent") };
    case "flowFinished":
      return { kind: "flow", flow, parent: null };
    default:
      return null;
  }
}

/** The text of a `message`, as its row shows it; null where the line is another marker or none. */
export function messageText(line: string): string | null {
  const match = /##teamcity\[message\s(?:[^|\]]|\|.)*?text\s*=\s*'((?:[^'|]|\|.)*)'/s.exec(line);
  return match ? plain(unescape(match[1] ?? "")) : null;
}

const ESCAPES: Readonly<Record<string, string>> = { n: " ", r: "", x: " ", l: " ", p: " " };

function unescape(value: string): string {
  return value.replace(/\|(?:0x([0-9A-Fa-f]{4})|(.))/gs, (_, code: string | undefined, letter: string | undefined) =>
    code === undefined ? (ESCAPES[letter ?? ""] ?? letter ?? "") : String.fromCharCode(Number.parseInt(code, 16)),
  );
}

/** `2008-09-03T14:02:34.487+0400`: the offset has no colon, which not every engine reads. */
function time(text: string): number | undefined {
  const milliseconds = Date.parse(text.replace(/([+-]\d\d)(\d\d)$/, "$1:$2"));
  return text === "" || Number.isNaN(milliseconds) ? undefined : milliseconds;
}
