// `cargo xtask bench browser`: what a reader sees and what it costs the browser, beside the article's way, in one run.
import { createWriteStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium, type Browser, type Page } from "@playwright/test";
import { test } from "@playwright/test";

import { chromiumPath } from "../support/chromium.ts";
import { numberedLine } from "../support/logs.ts";
import { measure, memoryOf, startSampling, takeSamples, type Measures } from "./sampler.ts";
import { article, millstream, write, type System } from "./systems.ts";

const number = (name: string, fallback: number): number => Number(process.env[name] ?? fallback);
const OPEN_LINES = number("BENCH_OPEN_LINES", 10_000_000);
const SECONDS = number("BENCH_SECONDS", 10);
const HOUR_LINES = number("BENCH_HOUR_LINES", 3_600_000);
/** A page that has not shown the end by then does not show it. */
const LIMIT_MS = number("BENCH_LIMIT_MS", 120_000);
const RATES = [1_000, 10_000, 50_000];
/** What the machine has left for frames while agent and relay take the same lines and nobody reads them. */
const COUNTS_ONLY = "empty page that counts frames";
const KINDS = ["Millstream", "article", COUNTS_ONLY] as const;

const out: string[] = [];
const say = (text: string): void => {
  out.push(text);
  console.log(text);
};
const round = (value: number, digits = 0): string => (Number.isFinite(value) ? value.toFixed(digits) : "–");
const ms = (value: number): string => (Number.isFinite(value) ? `${round(value, 1)} ms` : "–");
const ratio = (theirs: number, ours: number): string => (Number.isFinite(theirs / ours) ? `${round(theirs / ours, theirs / ours < 10 ? 2 : 0)}` : "–");

let browser: Browser;
let dir: string;

/** A page of a fresh browser. */
async function newPage(): Promise<Page> {
  await browser?.close();
  browser = await chromium.launch({ executablePath: chromiumPath(), args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
  return browser.newPage({ viewport: { width: 1280, height: 800 } });
}

/** Milliseconds until the page shows `text` in its newest row; null when it crashes or takes too long. */
async function untilShown(page: Page, system: System, url: string, text: string): Promise<number | null> {
  const began = performance.now();
  const crash = new Promise<null>((resolve) => page.once("crash", () => resolve(null)));
  const shown = page
    .goto(url, { waitUntil: "commit" })
    .then(() =>
      page.waitForFunction(
        ({ rows, wanted }) => {
          const all = document.querySelectorAll(rows);
          return all[all.length - 1]?.textContent?.includes(wanted) === true;
        },
        { rows: system.rows, wanted: text },
        { timeout: LIMIT_MS, polling: "raf" },
      ),
    )
    .then(() => performance.now() - began)
    .catch(() => null);
  return Promise.race([shown, crash]);
}

async function openLongLog(): Promise<void> {
  const file = join(dir, "long.log");
  const stream = createWriteStream(file);
  for (let line = 0; line < OPEN_LINES; ) {
    let text = "";
    for (const end = Math.min(OPEN_LINES, line + 10_000); line < end; line += 1) text += `${line}: ${numberedLine(line).slice(0, 60)}\n`;
    if (!stream.write(text)) await once(stream, "drain");
  }
  stream.end();
  await once(stream, "close");
  const newest = `${OPEN_LINES - 1}: `;
  const results: (number | null)[] = [];
  for (const make of [() => millstream(file, join(dir, "open")), () => article(file)]) {
    const system = await make();
    const url = await system.page(OPEN_LINES);
    // The first start of a browser reads its program from the disk.
    await (await newPage()).goto("about:blank");
    results.push(await untilShown(await newPage(), system, url, newest));
    await system.stop();
  }
  const [ours, theirs] = results;
  const shown = (ms: number | null | undefined): string => (ms === null || ms === undefined ? `not within ${LIMIT_MS / 1_000} s, or the tab crashed` : `${round(ms)} ms`);
  say(`\n### A log of ${OPEN_LINES.toLocaleString("en")} lines: from the click to its last line on the screen\n`);
  say(`| | Millstream | article | article ÷ Millstream |\n|---|---:|---:|---:|`);
  say(`| time | ${shown(ours)} | ${shown(theirs)} | ${ratio(theirs ?? Infinity, ours ?? NaN)} |`);
  rmSync(file);
}

async function follow(): Promise<void> {
  say(`\n### Following for ${SECONDS} s: frames, tasks over 50 ms, line written → line painted\n`);
  say(`| lines/s | system | frames/s | after the first second | long tasks | in them | p50 | p99 | p99: article ÷ Millstream |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|`);
  for (const rate of RATES) {
    const results: [string, Measures | null][] = [];
    for (const [at, kind] of KINDS.entries()) {
      const file = join(dir, `live-${rate}-${at}.log`);
      writeFileSync(file, "");
      const system = kind === "article" ? await article(file) : await millstream(file, join(dir, `live-${rate}-${at}`));
      await write(file, 1_000, 100);
      const page = await newPage();
      let crashed = false;
      page.once("crash", () => (crashed = true));
      const url = await system.page(100);
      if (kind !== COUNTS_ONLY) {
        await page.goto(url);
        await page.waitForFunction((rows) => document.querySelectorAll(rows).length > 10, system.rows);
      }
      await startSampling(page, system.rows);
      const fromMs = Date.now();
      await write(file, rate, rate * SECONDS);
      const samples = crashed ? null : await takeSamples(page).catch(() => null);
      results.push([kind, samples && measure(samples, fromMs)]);
      await system.stop();
      rmSync(file);
    }
    const [ours, theirs] = results.map(([, measures]) => measures);
    for (const [name, measures] of results) {
      if (!measures) say(`| ${rate} | ${name} | the tab crashed or hung | | | | | | |`);
      else {
        const compared = name !== "Millstream" || !theirs || !ours ? "" : ratio(theirs.p99Ms, ours.p99Ms);
        say(`| ${rate} | ${name} | ${round(measures.fps, 1)} | ${round(measures.warmFps, 1)} | ${measures.longTasks} | ${round(measures.longTaskMs)} ms | ${ms(measures.p50Ms)} | ${ms(measures.p99Ms)} | ${compared} |`);
      }
    }
  }
}

async function afterAnHour(): Promise<void> {
  const rate = 50_000;
  say(`\n### Memory of the tab after following an hour's worth of lines (${HOUR_LINES.toLocaleString("en")}, written at ${rate} lines/s)\n`);
  say(`| system | script, after 1/10 | script, at the end | its process, after 1/10 | its process, at the end |\n|---|---:|---:|---:|---:|`);
  const ends: number[] = [];
  for (const kind of ["Millstream", "article"] as const) {
    const file = join(dir, `hour-${kind}.log`);
    writeFileSync(file, "");
    const system = kind === "Millstream" ? await millstream(file, join(dir, "hour")) : await article(file);
    await write(file, 1_000, 100);
    const page = await newPage();
    const crash = new Promise<null>((resolve) => page.once("crash", () => resolve(null)));
    await page.goto(await system.page(100));
    const measured = async (lines: number) => {
      const before = performance.now();
      await write(file, rate, lines);
      const memory = await Promise.race([memoryOf(page).catch(() => null), crash, new Promise<null>((resolve) => setTimeout(() => resolve(null), LIMIT_MS))]);
      return { memory, seconds: (performance.now() - before) / 1_000 };
    };
    const early = await measured(HOUR_LINES / 10);
    const late = early.memory === null ? early : await measured((HOUR_LINES * 9) / 10);
    const cell = (value: number | undefined): string => (value === undefined ? "crashed or hung" : `${round(value)} MiB`);
    say(`| ${system.name} | ${cell(early.memory?.heapMiB)} | ${cell(late.memory?.heapMiB)} | ${cell(early.memory?.processMiB)} | ${cell(late.memory?.processMiB)} |`);
    ends.push(late.memory?.processMiB ?? NaN);
    await system.stop();
    rmSync(file);
  }
  say(`\nProcess at the end, article ÷ Millstream: ${ratio(ends[1] ?? NaN, ends[0] ?? NaN)}.`);
}

test("browser benchmark", async () => {
  test.setTimeout(0);
  dir = mkdtempSync(join(process.env.BENCH_DIR ?? tmpdir(), "millstream-bench-browser-"));
  try {
    const page = await newPage();
    say(`- ${await browser.version().replace(/^/, "Chromium ")}, headless, 1280 × 800; writer, agent, relay and browser on one machine.`);
    say(`- article: \`tail -f\` for each reader, chunks as JSON through a WebSocket (ws), a \`div\` appended for each line, scrolled to the end; nothing stored.`);
    await page.close();
    await openLongLog();
    await follow();
    await afterAnHour();
  } finally {
    await browser?.close();
    rmSync(dir, { recursive: true, force: true });
  }
  writeFileSync(process.env.BENCH_OUTPUT ?? "/dev/stdout", `${out.join("\n")}\n`);
});

