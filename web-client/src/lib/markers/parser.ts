/**
 * One parser for the markers of every CI. It reads the lines of one stream in order, or only those that
 * `CANDIDATES` selects: what it says is the same.
 */
import { BuildKitMarkers } from "./buildkit";
import { BuildkiteMarkers } from "./buildkite";
import type { MarkerEvent } from "./event";
import { GitHubMarkers } from "./github";
import { readGitLab } from "./gitlab";
import { readTeamCity } from "./teamcity";
import { TravisMarkers } from "./travis";

/**
 * Selects every line that can be a marker, and few others. In the syntax that the relay's search (Rust's regex crate,
 * on bytes) and JavaScript share; line by line, so that it needs the flag m where it looks through many lines.
 */
export const CANDIDATES = [
  // GitHub, also after the time of a stored log.
  String.raw`^(?:[0-9T:.-]{19,32}Z )?[ \t]*::[A-Za-z0-9_-]`,
  String.raw`##(?:\[(?:group|endgroup|error|warning|notice)\]|vso\[task\.|teamcity\[)`,
  String.raw`section_(?:start|end):[0-9]`,
  String.raw`travis_(?:fold|time):(?:start|end):`,
  String.raw`^(?:\x1b_bk;t=[0-9]+\x07)*(?:\x1b\[[0-9;]*[mK])*(?:---|\+\+\+|~~~|\^\^\^)[ \t]`,
  String.raw`^#[0-9]{1,5} (?:\[|DONE|ERROR|CACHED|CANCELED|\.\.\.|exporting|importing|resolv|load |sending|preparing|merging|docker-image:|local:|git:|http)`,
].join("|");

/** Characters of a line that are looked at. */
const MAX_LINE = 8_192;

export class MarkerParser {
  readonly #github = new GitHubMarkers();
  readonly #buildkite = new BuildkiteMarkers();
  readonly #travis = new TravisMarkers();
  readonly #buildkit = new BuildKitMarkers();

  /** What a line says; never throws. Lines come in the order of their sequences. */
  read(text: string, sequence: number): MarkerEvent[] {
    const line = text.length > MAX_LINE ? text.slice(0, MAX_LINE) : text;
    const single = this.#github.read(line) ?? readTeamCity(line) ?? this.#buildkite.read(line, sequence);
    if (single !== null) return [single];
    return [...readGitLab(line), ...this.#travis.read(line), ...this.#buildkit.read(line)];
  }
}
