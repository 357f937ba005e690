/** Times, spans and counts in words. */

/** Times beside lines: none, the clock's (here or in UTC), since the stream's start, since the line before. */
export type TimestampMode = "off" | "local" | "utc" | "start" | "delta";

/** What a time beside a line is counted from. */
export interface TimeOrigin {
  /** Start of the stream (of the first one, where there are several), microseconds since the Unix epoch. */
  readonly startUs: number;
  /** Capture time of the line above; null without one. */
  readonly beforeUs: number | null;
}

const pad = (value: number, width = 2): string => String(value).padStart(width, "0");

/** "3 min 12 s": two units at most. */
export function formatSpan(milliseconds: number): string {
  if (milliseconds < 1_000) return `${Math.max(0, Math.round(milliseconds))} ms`;
  const seconds = Math.floor(milliseconds / 1_000);
  if (seconds < 60) return seconds < 10 ? `${(milliseconds / 1_000).toFixed(1)} s` : `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** "now", "12 s", "3 m", "5 h", "2 d": how long ago, short. */
export function formatAgo(timeUs: number, nowMs: number): string {
  if (timeUs === 0) return "";
  const seconds = Math.floor((nowMs - timeUs / 1_000) / 1_000);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** The time beside a line, to the millisecond. */
export function formatTime(timeUs: number, mode: TimestampMode, { startUs, beforeUs }: TimeOrigin): string {
  switch (mode) {
    case "off":
      return "";
    case "start":
      return formatOffset(timeUs - startUs);
    case "delta":
      return beforeUs === null ? "" : formatOffset(timeUs - beforeUs);
    default:
      return formatClock(timeUs, mode);
  }
}

/** "+0.012", "+3:12.345", "+1:03:12.345"; a clock that was set back gives "−0.120". */
export function formatOffset(offsetUs: number): string {
  const milliseconds = Math.round(Math.abs(offsetUs) / 1_000);
  const seconds = Math.floor(milliseconds / 1_000) % 60;
  const minutes = Math.floor(milliseconds / 60_000) % 60;
  const hours = Math.floor(milliseconds / 3_600_000);
  const fraction = pad(milliseconds % 1_000, 3);
  const sign = offsetUs < 0 && milliseconds > 0 ? "−" : "+";
  if (hours > 0) return `${sign}${hours}:${pad(minutes)}:${pad(seconds)}.${fraction}`;
  return minutes > 0 ? `${sign}${minutes}:${pad(seconds)}.${fraction}` : `${sign}${seconds}.${fraction}`;
}

/** Time of day, to the millisecond. */
export function formatClock(timeUs: number, mode: "local" | "utc"): string {
  const time = new Date(timeUs / 1_000);
  const [hours, minutes, seconds] =
    mode === "utc"
      ? [time.getUTCHours(), time.getUTCMinutes(), time.getUTCSeconds()]
      : [time.getHours(), time.getMinutes(), time.getSeconds()];
  return `${pad(hours)}:${pad(minutes)}:${pad(seconds)}.${pad(time.getUTCMilliseconds(), 3)}`;
}

/** Date and time in full, for tool tips. */
export function formatInstant(timeUs: number, mode: TimestampMode = "local"): string {
  const time = new Date(timeUs / 1_000);
  if (mode === "utc") return time.toISOString().replace("T", " ");
  const date = `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
  return `${date} ${formatClock(timeUs, "local")}`;
}

/** 1,234,567 */
const grouped = new Intl.NumberFormat("en");

export function formatCount(count: number): string {
  return grouped.format(count);
}

/** "1 new line", "2 new lines" */
export function formatLines(count: number, word = "line"): string {
  return `${formatCount(count)} ${word}${count === 1 ? "" : "s"}`;
}

export function formatBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[unit] ?? ""}`;
}
