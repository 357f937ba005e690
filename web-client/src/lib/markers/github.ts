/**
 * GitHub Actions and Azure Pipelines, whose agents have one ancestor.
 *
 * - `::group::title`, `::error file=a.c,line=3::message`, `::stop-commands::TOKEN` … `::TOKEN::`: "Workflow commands
 *   for GitHub Actions" (docs.github.com). What is trimmed, split and unescaped follows actions/runner,
 *   src/Runner.Common/ActionCommand.cs.
 * - `##[group]title`, `##[error]message` …: Azure's formatting commands, which GitHub's stored logs have too.
 * - `##vso[task.logissue type=error;sourcepath=a.c;linenumber=3;]message`, `task.setprogress`, `task.complete`:
 *   "Logging commands" (learn.microsoft.com, Azure DevOps).
 */
import { plain, position, type MarkerEvent, type Severity } from "./event";

const COMMAND = /^\s*::([A-Za-z][\w-]*)(?: ([^:]*(?::(?!:)[^:]*)*))?::(.*)$/s;
const FORMAT = /^\s*##\[([A-Za-z]+)\](.*)$/s;
const AZURE = /^\s*##vso\[(\w+)\.(\w+)(?: ([^\]]*))?\](.*)$/s;
/** Stored logs begin every line with the time at which the service got it. */
const STAMP = /^\ufeff?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z /;

export class GitHubMarkers {
  /** Commands are off until this token comes back. */
  #stopToken: string | null = null;

  read(line: string): MarkerEvent | null {
    const text = line.replace(STAMP, "");
    if (this.#stopToken !== null) {
      if (text.trim() === `::${this.#stopToken}::`) this.#stopToken = null;
      return null;
    }
    const command = COMMAND.exec(text);
    if (command) return this.#command(command[1] ?? "", properties(command[2] ?? "", ",", PROPERTY), unescape(command[3] ?? "", DATA));
    const format = FORMAT.exec(text);
    if (format) return formatted((format[1] ?? "").toLowerCase(), unescape(format[2] ?? "", AZURE_ESCAPES));
    const azure = AZURE.exec(text);
    if (azure) return vso(`${azure[1]}.${azure[2]}`.toLowerCase(), properties(azure[3] ?? "", ";", AZURE_ESCAPES), unescape(azure[4] ?? "", AZURE_ESCAPES));
    return null;
  }

  #command(name: string, values: ReadonlyMap<string, string>, data: string): MarkerEvent | null {
    switch (name.toLowerCase()) {
      case "group":
        return open(data);
      case "endgroup":
        return CLOSE;
      case "error":
      case "warning":
      case "notice": {
        const title = values.get("title");
        return remark(name.toLowerCase() as Severity, title ? `${title}: ${data}` : data, values.get("file"), values.get("line"), values.get("col"));
      }
      case "stop-commands":
        this.#stopToken = data.trim() || null;
        return null;
      default:
        return null;
    }
  }
}

const CLOSE: MarkerEvent = { kind: "close", family: "github", key: "", flow: "" };

function open(title: string): MarkerEvent {
  return { kind: "open", family: "github", key: "", title: plain(title), collapsed: true, flow: "" };
}

function remark(severity: Severity, message: string, file?: string, line?: string, column?: string): MarkerEvent {
  return {
    kind: "remark",
    remark: { severity, message: plain(message), file: file ? plain(file) : undefined, line: position(line), column: position(column) },
  };
}

function formatted(name: string, data: string): MarkerEvent | null {
  switch (name) {
    case "group":
      return open(data);
    case "endgroup":
      return CLOSE;
    case "error":
    case "warning":
    case "notice":
      return remark(name, data);
    default:
      return null;
  }
}

function vso(name: string, values: ReadonlyMap<string, string>, data: string): MarkerEvent | null {
  switch (name) {
    case "task.logissue": {
      const severity = values.get("type") === "warning" ? "warning" : "error";
      const code = values.get("code");
      return remark(severity, code ? `${code}: ${data}` : data, values.get("sourcepath"), values.get("linenumber"), values.get("columnnumber"));
    }
    case "task.complete":
      return values.get("result")?.toLowerCase() === "failed" ? remark("error", data || "The task failed") : null;
    case "task.setprogress": {
      const percent = Number(values.get("value"));
      return { kind: "progress", fraction: percent >= 0 && percent <= 100 ? percent / 100 : null, text: plain(data) };
    }
    default:
      return null;
  }
}

/** Names are compared without regard to case; a pair without a value is left out. */
function properties(text: string, separator: string, escapes: Escapes): Map<string, string> {
  const values = new Map<string, string>();
  for (const pair of text.split(separator)) {
    const at = pair.indexOf("=");
    if (at > 0 && at < pair.length - 1) values.set(pair.slice(0, at).trim().toLowerCase(), unescape(pair.slice(at + 1), escapes));
  }
  return values;
}

type Escapes = Readonly<Record<string, string>>;
const DATA: Escapes = { "%25": "%", "%0D": "\r", "%0A": "\n" };
const PROPERTY: Escapes = { ...DATA, "%3A": ":", "%2C": "," };
const AZURE_ESCAPES: Escapes = { "%AZP25": "%", "%25": "%", "%3B": ";", "%0D": "\r", "%0A": "\n", "%5D": "]" };

/** In one pass, so that what an escape yields is not taken for another one. Line breaks become spaces in `plain`. */
function unescape(text: string, escapes: Escapes): string {
  return text.replace(/%(?:AZP25|[0-9A-F]{2})/g, (escape) => escapes[escape] ?? escape).replace(/\r?\n|\r/g, " ");
}
