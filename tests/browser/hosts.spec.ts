// Many hosts: the overview, the palette, panes, and a failed run beside the last good one.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Code, ConnectError } from "@connectrpc/connect";
import { type Page, expect, test } from "@playwright/test";

import { repository } from "./support/binaries.ts";
import { numberedLines } from "./support/logs.ts";
import { picture, row } from "./support/page.ts";
import { type Pipe, Relay } from "./support/own-relay.ts";

let relay: Relay;
let talking: Pipe;
let dir: string;

const STREAMS = 1_000;

test.beforeAll(async () => {
  test.setTimeout(240_000);
  relay = await Relay.start();
  dir = mkdtempSync(join(tmpdir(), "millstream-hosts-"));
  const cargo = join(repository, "tests/data/cargo-build-failed.ansi.log");
  const cpython = join(repository, "tests/data/cpython-build-1.log");
  // Two good runs, then one that goes wrong in the middle.
  await relay.build("build-1", "cpython", `cat ${cpython}`);
  await relay.build("build-1", "cpython", `cat ${cpython}`);
  await relay.build("build-1", "cpython", `head -60 ${cpython}; echo 'configure: error: C compiler cannot create executables'; exit 77`);
  await relay.build("build-2", "cargo", `cat ${cargo}; exit 101`);
  await relay.build("build-2", "slow", "echo compiling; exec sleep 10000", false);
  const away = await relay.build("build-3", "lost", "echo starting; exec sleep 10000", false);
  await relay.stream("source=lost");
  away.kill("SIGKILL");
  talking = relay.pipe("build-4-with-a-name-that-is-much-longer-than-any-column.eu-central-1.example.com", "server");
  await talking.write(numberedLines(0, 3));
  await relay.stream("source=server", 3);
});

test.afterAll(async () => {
  await relay.stop();
  rmSync(dir, { recursive: true, force: true });
});

const standing = (page: Page, source: string) => page.getByTestId("overview-row").filter({ has: page.locator(`.name:text-is("${source}")`) });

test("the overview says how every run, source and host stands", async ({ page }) => {
  // The page's clock is ahead of the build hosts': whoever has said nothing since the page opened has been silent for long.
  await page.clock.setSystemTime(Date.now() + 100_000);
  await page.goto(relay.url);
  await expect(page.getByTestId("overview-row")).toHaveCount(7);
  await expect(standing(page, "slow")).toHaveAttribute("data-standing", "stalled");
  await expect(standing(page, "slow")).toContainText(/no output for 1 min/);
  await expect(standing(page, "cargo")).toContainText("exit 101 after");
  await expect(standing(page, "lost")).toHaveAttribute("data-standing", "away");
  await expect(standing(page, "server")).toHaveAttribute("data-standing", "live");
  await talking.write(`${numberedLines(3, 4)}the last thing it said\n`);
  await expect(standing(page, "server")).toContainText("the last thing it said");
  await picture(page, "overview-streams");

  await page.getByTestId("standing-failed").click();
  await expect(page.getByTestId("overview-row")).toHaveCount(2);
  await page.getByTestId("standing-all").click();
  await page.getByTestId("overview-filter").fill("build-1 cpython");
  await expect(page.getByTestId("overview-row")).toHaveCount(3);
  await page.getByTestId("overview-filter").fill("there is no such thing");
  await expect(page.getByTestId("overview-nothing")).toBeVisible();
  await picture(page, "overview-nothing");
  await page.getByTestId("overview-filter").fill("");

  await page.getByTestId("sort-name").click();
  await expect(page.getByTestId("overview-row").first()).toContainText("build-1");
  await page.getByTestId("sort-name").click();
  await expect(page.getByTestId("overview-row").first()).toContainText("build-4");

  await page.getByTestId("overview-sources").click();
  await expect(page.getByTestId("overview-row").filter({ hasText: "cpython" }).locator(".past a")).toHaveCount(3);
  await picture(page, "overview-sources");
  await page.getByTestId("overview-hosts").click();
  await expect(page.getByTestId("overview-row").filter({ hasText: "build-1" })).toContainText("agent away");
  await expect(page.getByTestId("overview-row").filter({ hasText: "build-2" })).toContainText("stalled");
  await picture(page, "overview-hosts");
  await page.setViewportSize({ width: 320, height: 640 });
  await expect(page.getByTestId("sidebar")).toBeHidden();
  await picture(page, "overview-narrow");
});

test("the palette finds streams, hosts and actions, and text in all logs", async ({ page }) => {
  await page.goto(relay.url);
  await expect(page.getByTestId("overview")).toBeVisible();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("build-2 cargo");
  await expect(page.getByTestId("palette-item").first()).toContainText("cargo");
  await picture(page, "palette");
  await page.keyboard.press("Enter");
  await expect(page.getByTestId("pane-title")).toContainText("cargo");
  await page.keyboard.press("Control+k");
  await page.keyboard.type("this sheet");
  await page.keyboard.press("Enter");
  await expect(page.getByTestId("help-sheet")).toBeVisible();
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+k");
  await page.keyboard.type("build-4");
  await page.getByTestId("palette-item").filter({ hasText: "1 stream" }).click();
  await expect(page.getByTestId("overview-row")).toHaveCount(1);

});

test("the palette searches the text of all logs", async ({ page }) => {
  const answers = async (): Promise<boolean> => {
    try {
      for await (const _ of relay.client().search({ filter: { substring: "x" } })) return true;
    } catch (error) {
      if (ConnectError.from(error).code === Code.Unimplemented) return false;
      throw error;
    }
    return true;
  };
  test.skip(!(await answers()), "this relay does not serve LogService.Search");
  await page.goto(relay.url);
  await expect(page.getByTestId("overview")).toBeVisible();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("mismatched types");
  await page.keyboard.press("Enter");
  await expect(page.getByTestId("palette-progress")).toHaveAttribute("data-done", "true");
  await expect(page.getByTestId("palette-item")).toHaveCount(1);
  await picture(page, "palette-text");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/\/streams\/\d+#s109$/);
  await expect(row(page, 109)).toBeInViewport();
});

test("a failed run is compared with the last good one, and the first difference is in view", async ({ page }) => {
  const failed = await relay.stream("source=cpython", 1, ({ end }) => end?.exitCode === 77);
  await page.goto(`${relay.url}/streams/${failed.streamId}`);
  await page.getByTestId("compare-good").click();
  await expect(page).toHaveURL(new RegExp(`/compare/\\d+/${failed.streamId}$`));
  await expect(page.getByTestId("compare-words")).toHaveText("The runs first differ at s61 of the failed run");
  const different = page.locator("[data-testid=compare-row]:not([data-kind=same])").first();
  await expect(different).toBeInViewport();
  await expect(different).toContainText("C compiler cannot create executables");
  await picture(page, "compare");
  await page.keyboard.press("Escape");
  await expect(page).toHaveURL(`${relay.url}/streams/${failed.streamId}`);
});

test("streams stand side by side, in panes that the keyboard resizes, and merge with host colours", async ({ page }) => {
  const cargo = await relay.stream("source=cargo");
  const server = await relay.stream("source=server");
  await page.setViewportSize({ width: 1400, height: 800 });
  await page.goto(`${relay.url}/streams/${cargo.streamId}/${server.streamId}`);
  await expect(page.getByTestId("log-pane")).toHaveCount(2);
  await expect(page.getByTestId("log-row").first()).toBeVisible();
  const widths = () => page.getByTestId("pane").evaluateAll((panes) => panes.map((pane) => Math.round(pane.getBoundingClientRect().width)));
  const [before] = await widths();
  await page.getByTestId("pane-border").focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  await expect.poll(async () => (await widths())[0]).toBeLessThan(before!);
  const border = (await page.getByTestId("pane-border").boundingBox())!;
  await page.mouse.move(border.x, border.y + 300);
  await page.mouse.down();
  await page.mouse.move(border.x + 200, border.y + 300, { steps: 4 });
  await page.mouse.up();
  await expect.poll(async () => (await widths())[0]).toBeGreaterThan(before!);
  await picture(page, "panes-resized");

  for (const active of [1, 0, 1]) {
    await page.keyboard.press("]");
    await expect(page.getByTestId("log-pane").nth(active)).toHaveAttribute("data-active", "true");
  }
  await page.keyboard.press("x");
  await expect(page.getByTestId("log-pane")).toHaveCount(1);
  await page.locator(`[data-testid=stream-item][data-stream-id="${server.streamId}"]`).getByRole("link").click({ modifiers: ["Control"] });
  await expect(page).toHaveURL(`${relay.url}/streams/${cargo.streamId},${server.streamId}`);
  await expect(page.locator(`[data-testid=log-row][data-stream-id="${server.streamId}"]`).first()).toBeAttached();
  await picture(page, "merged-hosts");
});

test(`${STREAMS} streams: only what is in view is painted, and it stays swift`, async ({ page }) => {
  test.setTimeout(240_000);
  const logs = join(dir, "many");
  mkdirSync(logs);
  for (let at = 0; at < STREAMS; at += 1) writeFileSync(join(logs, `service-${String(at).padStart(4, "0")}.log`), `line of service ${at}\n`);
  const many = relay.agent("build-5", ["run", "--file", join(logs, "*.log")]);
  await expect
    .poll(() => relay.metric("millstream_streams"), { timeout: 120_000 })
    .toBeGreaterThanOrEqual(STREAMS + 7);
  await page.addInitScript(() => {
    const seen: number[] = [];
    (globalThis as { longTasks?: number[] }).longTasks = seen;
    new PerformanceObserver((list) => seen.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: "longtask" });
  });
  await page.goto(relay.url);
  await expect(page.getByTestId("overview-rows")).toHaveAttribute("data-count", String(STREAMS + 7));
  expect(await page.getByTestId("overview-row").count()).toBeLessThan(60);
  await page.getByTestId("sort-name").click();
  const rows = page.getByTestId("overview-rows");
  await page.evaluate(() => ((globalThis as { longTasks?: number[] }).longTasks!.length = 0));
  await rows.hover();
  for (let turn = 0; turn < 20; turn += 1) {
    await page.mouse.wheel(0, 2_000);
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  }
  const longTasks = await page.evaluate(() => (globalThis as { longTasks?: number[] }).longTasks!);
  test.info().annotations.push({ type: "long tasks while scrolling 1,000 streams, ms", description: longTasks.map(Math.round).join(", ") || "none" });
  await expect(page.getByTestId("overview-row").filter({ hasText: "service-0999.log" })).toBeVisible();
  await expect(page.getByTestId("overview-row").filter({ hasText: "service-0999.log" })).toContainText("line of service 999");
  await picture(page, "overview-thousand");
  await page.getByTestId("overview-filter").fill("service-0500");
  await expect(page.getByTestId("overview-row")).toHaveCount(1);
  many.kill("SIGKILL");
});
