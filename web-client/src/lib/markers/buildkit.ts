/**
 * BuildKit's plain progress (`docker build --progress=plain`): `#10 [stage 2/5] RUN make` begins the lines of a step,
 * `#10 9.8 text` is output, `#10 ...` says that another step goes on, `#10 DONE 1.2s`, `#10 CACHED`, `#10 CANCELED` and
 * `#10 ERROR: why` end it (moby/buildkit, util/progress/progressui/printer.go). A step that was interrupted begins anew
 * with the same header.
 */
import { plain, type MarkerEvent } from "./event";

const LINE = /^#([1-9]\d{0,4}) (.*)$/s;
const HEADER = /^(?:\[[^\]]+\]|(?:ex|im)porting |resolv(?:e|ing) |load |sending |preparing |merging |docker-image:\/\/|local:\/\/|git:\/\/|https?:\/\/)/;
const DONE = /^DONE(?: ([\d.]{1,12})s)?$/;
const STEP = /^\[(?:[^\]]*?\s)?(\d{1,4})\/(\d{1,4})\]/;

export class BuildKitMarkers {
  #current: string | null = null;

  read(line: string): MarkerEvent[] {
    const match = line.startsWith("#") ? LINE.exec(line.trimEnd()) : null;
    if (match === null) return [];
    const key = `#${match[1]}`;
    const text = match[2] ?? "";
    if (this.#current === key) {
      const done = DONE.exec(text);
      const isOver = done !== null || text === "CACHED" || text === "CANCELED" || text === "..." || text.startsWith("ERROR");
      if (!isOver) return [];
      this.#current = null;
      const durationMs = done?.[1] === undefined ? undefined : Number(done[1]) * 1_000;
      const close: MarkerEvent = { kind: "close", family: "buildkit", key, flow: "", durationMs };
      if (!text.startsWith("ERROR")) return [close];
      return [{ kind: "remark", remark: { severity: "error", message: plain(text.replace(/^ERROR:?\s*/, "")) || "The step failed" } }, close];
    }
    if (!HEADER.test(text)) return [];
    this.#current = key;
    const events: MarkerEvent[] = [{ kind: "open", family: "buildkit", key, title: plain(text), collapsed: false, flow: "" }];
    const step = STEP.exec(text);
    const [at, of] = [Number(step?.[1]), Number(step?.[2])];
    if (step && of > 0 && at <= of) events.push({ kind: "progress", fraction: (at - 1) / of, text: plain(text) });
    return events;
  }
}
