// What is measured in the page: when which line was painted, frames, and tasks that held the page up.
import type { CDPSession, Page } from "@playwright/test";

/** One frame: when it was painted, and the stamp of the newest line in it, milliseconds since the Unix epoch. */
export type Frame = readonly [paintedMs: number, stampMs: number];

export interface Samples {
  readonly frames: Frame[];
  readonly longTasks: number[];
}

/** Begins to sample; `newest` selects the rows, of which the last one counts. */
export async function startSampling(page: Page, newest: string): Promise<void> {
  await page.evaluate((selector) => {
    const samples = { frames: [] as [number, number][], longTasks: [] as number[] };
    Object.assign(window, { samples });
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) samples.longTasks.push(entry.duration);
    }).observe({ entryTypes: ["longtask"] });
    // A resize observer runs after all animation callbacks of a frame and sees the document that is painted; the
    // message comes when that has been done.
    const probe = document.createElement("i");
    Object.assign(probe.style, { position: "fixed", width: "1px", height: "1px", visibility: "hidden" });
    document.body.append(probe);
    let stampMs = 0;
    const painted = new MessageChannel();
    painted.port1.onmessage = () => samples.frames.push([performance.timeOrigin + performance.now(), stampMs]);
    new ResizeObserver(() => {
      const rows = document.querySelectorAll(selector);
      const text = rows[rows.length - 1]?.textContent ?? "";
      const stamp = /^\d{19} /.exec(text)?.[0];
      if (stamp !== undefined) stampMs = Number(stamp) / 1e6;
      painted.port2.postMessage(null);
    }).observe(probe);
    const next = (): void => {
      probe.style.width = probe.style.width === "1px" ? "2px" : "1px";
      requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  }, newest);
}

export async function takeSamples(page: Page): Promise<Samples> {
  return page.evaluate(() => (window as unknown as { samples: Samples }).samples);
}

export interface Measures {
  readonly fps: number;
  /** Without the first second, in which a browser compiles the page's code while it runs for the first time. */
  readonly warmFps: number;
  readonly longTasks: number;
  readonly longTaskMs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/**
 * Latency of all lines between the newest ones of two frames, which are painted (or skipped) together. Lines are written
 * steadily from `fromMs` on, milliseconds since the Unix epoch; the quiet before it counts for nothing.
 */
export function measure({ frames, longTasks }: Samples, fromMs: number): Measures {
  const latencies: number[] = [];
  let before = fromMs;
  for (const [paintedMs, stampMs] of frames) {
    for (let writtenMs = before + 1; writtenMs <= stampMs; writtenMs += 1) latencies.push(paintedMs - writtenMs);
    before = Math.max(before, stampMs);
  }
  latencies.sort((a, b) => a - b);
  const at = (fraction: number): number => latencies[Math.min(latencies.length - 1, Math.floor(fraction * latencies.length))] ?? NaN;
  return {
    fps: fpsOf(frames),
    warmFps: fpsOf(frames.filter(([paintedMs]) => paintedMs >= fromMs + 1_000)),
    longTasks: longTasks.length,
    longTaskMs: longTasks.reduce((sum, task) => sum + task, 0),
    p50Ms: at(0.5),
    p99Ms: at(0.99),
  };
}

function fpsOf(frames: readonly Frame[]): number {
  const spanMs = (frames.at(-1)?.[0] ?? 0) - (frames[0]?.[0] ?? 0);
  return (frames.length - 1) / (spanMs / 1_000);
}

/** Memory of the page after a collection, MiB: of the script, and of its whole process. */
export async function memoryOf(page: Page): Promise<{ heapMiB: number; processMiB: number }> {
  const session: CDPSession = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.enable");
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  await session.detach();
  return { heapMiB: usedSize / 2 ** 20, processMiB: await largestRenderer(page) };
}

/** The browser shows one page, so that its largest renderer is that page's. */
async function largestRenderer(page: Page): Promise<number> {
  const browser = page.context().browser();
  if (browser === null) return NaN;
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  const { readFileSync } = await import("node:fs");
  const sizes = processInfo
    .filter(({ type }) => type === "renderer")
    .map(({ id }) => {
      const status = readFileSync(`/proc/${id}/status`, "utf8");
      return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024;
    });
  return Math.max(0, ...sizes);
}
