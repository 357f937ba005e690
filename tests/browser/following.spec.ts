// Following, and how it stands in words, in the tab's title and in its icon.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type Page, expect, test } from "@playwright/test";

import { numberedLines } from "./support/logs.ts";
import { picture, row } from "./support/page.ts";
import { Relay } from "./support/own-relay.ts";

let relay: Relay;
test.beforeAll(async () => {
  relay = await Relay.start();
});
test.afterAll(async () => relay.stop());

const state = (page: Page) => page.getByTestId("connection-state");
const iconTone = (page: Page) => page.locator("link[rel=icon]").getAttribute("data-tone");

test("from the first line to the exit: in words, in the title and in the icon", async ({ page }) => {
  const dir = mkdtempSync(join(tmpdir(), "millstream-words-"));
  const untilThere = (name: string): string => `until [ -e ${join(dir, name)} ]; do sleep 0.1; done`;
  const quiet = relay.pipe("build-1", "quiet");
  await page.goto(`${relay.url}/streams/${(await relay.stream("source=quiet", 0)).streamId}`);
  await expect(state(page)).toHaveText("waiting for the first line");
  await picture(page, "waiting-for-the-first-line");
  await quiet.end();
  await relay.build("build-1", "words", `${untilThere("one")}; echo first; ${untilThere("two")}; exit 3`, false);
  const { streamId } = await relay.stream("source=words", 0);
  await page.goto(`${relay.url}/streams/${streamId}`);
  await expect(state(page)).toHaveText("live");
  await expect(page).toHaveTitle("● words on build-1 · Millstream");
  expect(await iconTone(page)).toBe("live");
  writeFileSync(join(dir, "one"), "");
  await expect(row(page, 1)).toBeVisible();
  await expect(state(page)).toHaveText("live");
  writeFileSync(join(dir, "two"), "");
  await expect(state(page)).toHaveText(/^ended with exit 3 after \d/);
  await expect(page).toHaveTitle("✕ words on build-1 · Millstream");
  expect(await iconTone(page)).toBe("failed");
  await picture(page, "ended-with-exit");
  rmSync(dir, { recursive: true, force: true });
});

test("a relay that dies and returns: the page says what it does and goes on at the next line", async ({ page }) => {
  const pipe = relay.pipe("build-1", "mended");
  await pipe.write(numberedLines(0, 30));
  const { streamId } = await relay.stream("source=mended", 30);
  await page.goto(`${relay.url}/streams/${streamId}`);
  await expect(row(page, 29)).toBeVisible();
  await expect(state(page)).toHaveText("live");
  await relay.kill();
  await expect(state(page)).toHaveText(/the relay cannot be reached; reconnecting in \d+ s/);
  await expect(page).toHaveTitle(/^◌ /);
  await picture(page, "reconnecting");
  // Long enough to be cut short; where the machine is so slow that the wait ends before, the page comes back by itself.
  await expect(state(page)).toHaveText(/reconnecting in (8|9|\d\d) s/);
  await relay.restart();
  const isLive = expect(state(page)).toHaveText("live");
  await Promise.race([page.getByTestId("retry-now").click(), isLive]);
  await isLive;
  await pipe.write(numberedLines(30, 35));
  await expect(row(page, 34)).toBeVisible();
  const shown = await page.getByTestId("log-row").evaluateAll((rows) => rows.map((each) => Number((each as HTMLElement).dataset.sequence)));
  expect(shown).toEqual(Array.from({ length: shown.length }, (_, at) => (shown[0] ?? 0) + at));
  await pipe.end();
});

test("it follows until a person scrolls or selects, counts new lines, and returns", async ({ page }) => {
  const pipe = relay.pipe("build-1", "paused");
  await pipe.write(numberedLines(0, 200));
  const { streamId } = await relay.stream("source=paused", 200);
  await page.goto(`${relay.url}/streams/${streamId}`);
  await expect(row(page, 199)).toBeVisible();
  const view = page.getByTestId("log-view");
  await expect(view).toHaveAttribute("data-following", "true");
  // Selecting with the mouse.
  const box = (await row(page, 195).getByTestId("log-text").boundingBox())!;
  await page.mouse.move(box.x + 60, box.y + 10);
  await page.mouse.down();
  await page.mouse.move(box.x + 240, box.y + 10, { steps: 4 });
  await page.mouse.up();
  await expect(view).toHaveAttribute("data-following", "false");
  await pipe.write(numberedLines(200, 225));
  await expect(page.getByTestId("new-lines")).toHaveText("25 new lines");
  await expect(row(page, 195)).toBeInViewport();
  await page.keyboard.press("G");
  await expect(view).toHaveAttribute("data-following", "true");
  await expect(row(page, 224)).toBeInViewport();
  // Scrolling by key.
  await page.keyboard.press("k");
  await page.keyboard.press("k");
  await expect(view).toHaveAttribute("data-following", "false");
  await page.keyboard.press("f");
  await expect(view).toHaveAttribute("data-following", "true");

  // Scrolled up and down again, it follows; then a line is chosen, and the view stays where it is by then.
  await view.hover();
  await page.mouse.wheel(0, -600);
  await expect(view).toHaveAttribute("data-following", "false");
  await page.mouse.wheel(0, 2_000);
  await expect(view).toHaveAttribute("data-following", "true");
  await pipe.write(numberedLines(225, 400));
  await expect(row(page, 399)).toBeInViewport();
  const topOf = (sequence: number) => row(page, sequence).evaluate((element) => element.getBoundingClientRect().top);
  const before = await topOf(390);
  await row(page, 390).getByTestId("line-number").click();
  await expect(page.getByTestId("line-target")).toContainText("s390");
  await expect(view).toHaveAttribute("data-following", "false");
  expect(await topOf(390)).toBe(before);
  await pipe.end();
});
