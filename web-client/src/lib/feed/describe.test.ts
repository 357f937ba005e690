import { describe, expect, test } from "vitest";
import { describeState } from "./describe";
import { Track } from "./track";

function trackAt(received: number, change: (track: Track) => void = () => undefined): ReadonlyMap<number, Track> {
  const track = new Track(1);
  track.receive(received);
  change(track);
  return new Map([[1, track]]);
}

describe("the state in words", () => {
  test.each([
    [{ kind: "connecting" }, "connecting"],
    [{ kind: "catching-up" }, "reading history"],
    [{ kind: "live" }, "live"],
    [{ kind: "polling" }, "live, read every second"],
    [{ kind: "resuming" }, "resuming from s123"],
    [{ kind: "reconnecting", atMs: 3_000, reason: "the relay stopped" }, "the relay stopped; reconnecting in 3 s"],
    [{ kind: "failed", reason: "there is no stream 9; look at the list" }, "there is no stream 9"],
  ] as const)("%j", (phase, text) => {
    expect(describeState({ phase, tracks: trackAt(123) }, 0).text).toBe(text);
  });

  test("waits for the first line", () => {
    expect(describeState({ phase: { kind: "live" }, tracks: trackAt(0) }, 0).text).toBe("waiting for the first line");
  });

  test("says how far behind it is until those lines have come", () => {
    const tracks = trackAt(100, (track) => track.hear(1_600));
    expect(describeState({ phase: { kind: "live" }, tracks }, 0)).toEqual({ text: "behind by 1,500 lines", tone: "warning" });
    tracks.get(1)?.receive(1_600);
    expect(describeState({ phase: { kind: "live" }, tracks }, 0).text).toBe("live");
  });

  test("says how many lines are missing", () => {
    const tracks = trackAt(100, (track) => (track.missing = 40));
    expect(describeState({ phase: { kind: "live" }, tracks }, 0)).toEqual({ text: "live, with a gap of 40 lines", tone: "warning" });
  });
});
