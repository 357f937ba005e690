// The keys of the pages, and who cannot use a mouse or small print.
import { type Page, expect, test } from "@playwright/test";

import { expectAccessible, expectNoSideways } from "./support/axe.ts";
import { numberedLines } from "./support/logs.ts";
import { lastSequence, picture, row } from "./support/page.ts";
import { Relay } from "./support/own-relay.ts";

let relay: Relay;
let empty: Relay;
let log: string;

test.beforeAll(async () => {
  test.setTimeout(240_000);
  relay = await Relay.start();
  empty = await Relay.start();
  const pipe = relay.pipe("build-1", "keys");
  await pipe.write(`${numberedLines(0, 300)}warning: unused variable\n${numberedLines(301, 400)}error: it broke\n${numberedLines(401, 500)}`);
  await pipe.end();
  await relay.build("build-2", "make", "echo good");
  await relay.build("build-2", "make", "echo bad; exit 2");
  log = `/streams/${(await relay.stream("source=keys", 500)).streamId}`;
});

test.afterAll(async () => {
  await relay.stop();
  await empty.stop();
});

const view = (page: Page) => page.getByTestId("log-view");
const topLine = (page: Page): Promise<number> =>
  view(page).evaluate((scroller) => {
    const top = scroller.getBoundingClientRect().top;
    const rows = [...scroller.querySelectorAll<HTMLElement>("[data-testid=log-row]")];
    return Number(rows.find((each) => each.getBoundingClientRect().bottom > top + 2)?.dataset.sequence ?? -1);
  });

test("lnav's and GitHub's keys move, follow and change the times; ? says which there are", async ({ page }) => {
  await page.goto(relay.url + log);
  await expect(row(page, 499)).toBeVisible();
  await page.keyboard.press("g");
  await expect(row(page, 0)).toBeInViewport();
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await expect.poll(() => topLine(page)).toBeGreaterThanOrEqual(2);
  const at = await topLine(page);
  await page.keyboard.press("k");
  await expect.poll(() => topLine(page)).toBe(at - 1);
  await page.keyboard.press("G");
  await expect.poll(() => lastSequence(page)).toBe(499);
  await expect(view(page)).toHaveAttribute("data-following", "true");

  const clock = row(page, 499).getByTestId("timestamp");
  await expect(clock).toBeHidden();
  await page.keyboard.press("T");
  await expect(clock).toHaveText(/^\d\d:\d\d:\d\d\.\d{3}$/);
  await page.keyboard.press("T");
  await page.keyboard.press("T");
  await expect(clock).toHaveText(/^\+[\d:]+\.\d{3}$/);
  await picture(page, "times-since-start");
  await page.keyboard.press("T");
  await expect(clock).toHaveText(/^\+\d+\.\d{3}$/);
  await page.keyboard.press("T");
  await expect(clock).toBeHidden();

  await page.keyboard.press("F");
  await expect(page.getByTestId("sidebar")).toBeHidden();
  await picture(page, "full-screen");
  await page.keyboard.press("F");
  await expect(page.getByTestId("sidebar")).toBeVisible();

  await page.keyboard.press("?");
  const sheet = page.getByTestId("help-sheet");
  for (const key of "/ n N e E w W { } g G j k T F ?".split(" ")) {
    await expect(sheet.locator("kbd").filter({ hasText: new RegExp(`^${key.replace(/[?{}/]/g, "\\$&")}$`) })).toHaveCount(1);
  }
  await picture(page, "help-sheet");

  // Turned off, a letter is only a letter; Ctrl K and named keys stay.
  await sheet.getByTestId("single-keys").uncheck();
  await page.keyboard.press("Escape");
  await expect(sheet).toBeHidden();
  await page.keyboard.press("g");
  await page.keyboard.press("?");
  await expect(sheet).toBeHidden();
  expect(await lastSequence(page)).toBe(499);
  await page.keyboard.press("Home");
  await expect(row(page, 0)).toBeInViewport();
  await page.reload();
  await expect(row(page, 499)).toBeVisible();
  await page.keyboard.press("?");
  await expect(sheet).toBeHidden();
  await page.keyboard.press("Control+k");
  await expect(page.getByTestId("palette")).toBeVisible();
});

test("with the keyboard alone: from the overview into a log, to a line, and back", async ({ page }) => {
  await page.goto(relay.url);
  await expect(page.getByTestId("overview-row")).toHaveCount(3);
  await page.keyboard.press("/");
  await page.keyboard.type("keys");
  await expect(page.getByTestId("overview-row")).toHaveCount(1);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await expect(row(page, 499)).toBeVisible();
  await page.keyboard.press(":");
  await page.keyboard.type("123");
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/#s123$/);
  await expect(row(page, 123)).toBeInViewport();
  await page.locator("body").press("Escape");
  await expect(page).not.toHaveURL(/#/);
  await page.keyboard.press("o");
  await expect(page.getByTestId("overview")).toBeVisible();
});

for (const colorScheme of ["light", "dark"] as const) {
  test(`axe finds nothing serious in any page, ${colorScheme}, wide and narrow`, async ({ page }) => {
    test.setTimeout(240_000);
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    const check = async (what: string): Promise<void> => {
      await expectAccessible(page, what);
      await expectNoSideways(page, what);
      await picture(page, `page-${what}-${colorScheme}`);
    };
    const failed = await relay.stream("source=make", 1, ({ end }) => end?.exitCode === 2);
    const good = await relay.stream("source=make", 1, ({ end }) => end?.exitCode === 0);
    for (const [size, width] of [["wide", 1_280], ["narrow", 320]] as const) {
      await page.setViewportSize({ width, height: 720 });
      await page.goto(relay.url);
      await expect(page.getByTestId("overview-row")).toHaveCount(3);
      await check(`overview-${size}`);
      await page.getByTestId("overview-sources").click();
      await check(`sources-${size}`);
      await page.keyboard.press("Control+k");
      await expect(page.getByTestId("palette-item").first()).toBeVisible();
      await check(`palette-${size}`);
      await page.keyboard.press("Escape");
      await page.keyboard.press("?");
      await expect(page.getByTestId("help-sheet")).toBeVisible();
      await check(`help-${size}`);
      await page.keyboard.press("Escape");
      if (size === "narrow") {
        await page.getByTestId("open-drawer").click();
        await expect(page.getByTestId("sidebar")).toBeInViewport();
        await check(`drawer-${size}`);
      }
      await page.goto(relay.url + log);
      await expect(row(page, 499)).toBeVisible();
      await check(`log-${size}`);
      await page.goto(`${relay.url}/streams/${failed.streamId}/${good.streamId}`);
      // A run is its line and what is said of its start and its end.
      await expect(page.getByTestId("log-row")).toHaveCount(6);
      await check(`panes-${size}`);
      const tools = page.locator("header .second");
      await expect(tools).toHaveCount(2);
      const sticksOut = await tools.evaluateAll((bars) => bars.filter((bar) => getComputedStyle(bar).overflowX === "visible" && bar.scrollWidth > bar.clientWidth).length);
      expect(sticksOut, "tools of a pane that reach into the next one").toBe(0);
      await page.goto(`${relay.url}/compare/${good.streamId}/${failed.streamId}`);
      await expect(page.getByTestId("compare-words")).toContainText("first differ");
      await check(`compare-${size}`);
      await page.goto(`${relay.url}/streams/4711`);
      await expect(page.getByTestId("connection-state")).toContainText("4711");
      await check(`unknown-stream-${size}`);
      await page.goto(empty.url);
      await expect(page.getByTestId("empty")).toBeVisible();
      await check(`empty-${size}`);
    }
  });
}
