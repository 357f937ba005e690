/** What the browser's tab says: a title that begins with the state's mark, and an icon with its colour. */
import type { Tone } from "../lib/feed/describe";

const MARKS: Record<Tone, string> = { quiet: "■", live: "●", warning: "◌", passed: "✓", failed: "✕" };

/** Drawn over the lower right of the icon, on a 32-pixel grid. */
const BADGES: Record<Tone, string> = {
  quiet: badge("#6b7280", "M21 21h6v6h-6z"),
  live: badge("#16a34a", ""),
  warning: badge("#d97706", "M22 21v6M26 21v6"),
  passed: badge("#16a34a", "m20.5 24 2.5 2.6 4.6-5"),
  failed: badge("#dc2626", "m21.4 21.4 5.2 5.2M26.6 21.4l-5.2 5.2"),
};

function badge(colour: string, mark: string): string {
  return `<circle cx="24" cy="24" r="8" fill="${colour}" stroke="#fff" stroke-width="1.5"/><path d="${mark}" fill="none" stroke="#fff" stroke-width="2.2" stroke-linecap="round" stroke-linejoin="round"/>`;
}

const ICON = `<rect width="32" height="32" rx="8" fill="#4f46e5"/><path d="M7 11h18M7 16h13M7 21h9" stroke="#fff" stroke-width="2.6" stroke-linecap="round"/>`;

/** Shows what is in view and how it stands; without a tone, the plain icon. */
export function showInTab(title: string, tone: Tone | null): void {
  document.title = tone === null ? title : `${MARKS[tone]} ${title}`;
  const link = document.querySelector<HTMLLinkElement>("link[rel=icon]");
  if (link === null || link.dataset["tone"] === (tone ?? "")) return;
  link.dataset["tone"] = tone ?? "";
  link.href =
    tone === null
      ? "/favicon.svg"
      : `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${ICON}${BADGES[tone]}</svg>`)}`;
}
