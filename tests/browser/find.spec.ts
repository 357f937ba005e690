// Finding in a whole stream, of which the page holds a small part.
import { expect, test, type Page } from "@playwright/test";

import { numberedLines } from "./support/logs.ts";
import { picture, row, streamId } from "./support/page.ts";
import { Pipe, demoUrl } from "./support/pipe.ts";

const LINES = 60_000;
/** Every line with it, and no other, is a hit. */
const NEEDLE = "a needle in the haystack";
const HITS = [17, 30_000, 30_001, 59_990];

async function haystack(name: string): Promise<{ id: bigint; pipe: Pipe }> {
  const pipe = new Pipe("archive", name);
  let from = 0;
  for (const hit of HITS) {
    await pipe.write(numberedLines(from, hit));
    await pipe.write(`${hit}: ${NEEDLE}, error: it pricks\n`);
    from = hit + 1;
  }
  await pipe.write(numberedLines(from, LINES));
  return { id: await streamId(pipe.selector, LINES), pipe };
}

async function find(page: Page, text: string): Promise<void> {
  await page.keyboard.press("/");
  await page.getByTestId("find-input").fill(text);
  await expect(page.getByTestId("find-count")).toHaveAttribute("data-done", "true");
}

test("/ finds in the whole stream, n and N go from hit to hit, and the address keeps the search", async ({ page }) => {
  const { id, pipe } = await haystack("find");
  await page.goto(`${demoUrl()}/streams/${id}`);
  await expect(row(page, LINES - 1)).toBeVisible();
  await find(page, NEEDLE);
  await expect(page.getByTestId("find-count")).toHaveText("4 hits");
  await expect(page.getByTestId("hit")).toHaveCount(HITS.length);
  await page.getByTestId("hit").first().click();
  await expect(row(page, 17)).toBeVisible();
  await expect(page.getByTestId("find-count")).toHaveText("1 of 4");
  for (const [key, hit] of [["n", 30_000], ["n", 30_001], ["N", 30_000], ["N", 17]] as const) {
    await page.keyboard.press(key);
    await expect(row(page, hit)).toBeVisible();
    await expect(page.getByTestId("line-target")).toContainText(`s${hit}`);
  }
  await picture(page, "find");

  // Somebody else opens the link.
  const link = page.url();
  expect(link).toContain("?find=a%20needle");
  await page.goto("about:blank");
  await page.goto(link);
  await expect(page.getByTestId("find-input")).toHaveValue(NEEDLE);
  await expect(page.getByTestId("find-count")).toHaveText("1 of 4");
  await expect(row(page, 17)).toBeVisible();

  // Hits only, also those that come now; then one of them in its place.
  await page.getByTestId("find-only").click();
  await expect(page.getByTestId("hits-only").getByTestId("hit")).toHaveCount(4);
  await pipe.write(`${LINES}: ${NEEDLE} again\nno hit\n`);
  await expect(page.getByTestId("hits-only").getByTestId("hit")).toHaveCount(5);
  await picture(page, "find-hits-only");
  await page.getByTestId("hits-only").getByTestId("hit").nth(4).click();
  await expect(page.getByTestId("hits-only")).toHaveCount(0);
  await expect(row(page, LINES)).toBeVisible();
  await expect(row(page, LINES - 1)).toBeVisible();

  await page.getByTestId("find-close").click();
  await expect(page.getByTestId("find-panel")).toHaveCount(0);
  expect(page.url()).not.toContain("find=");
  await pipe.end();
});

test("a pattern may be a regular expression with case, and a wrong one says what is wrong", async ({ page }) => {
  const { id, pipe } = await haystack("find-regex");
  await pipe.end();
  await page.goto(`${demoUrl()}/streams/${id}`);
  await expect(row(page, LINES - 1)).toBeVisible();
  await find(page, "^3000[01]: A NEEDLE");
  await expect(page.getByTestId("find-count")).toHaveText("No hits");
  await page.getByTestId("find-regex").click();
  await expect(page.getByTestId("find-count")).toHaveText("2 hits");
  await page.getByTestId("find-case").click();
  await expect(page.getByTestId("find-count")).toHaveText("No hits");
  await page.getByTestId("find-input").fill("(");
  await expect(page.getByTestId("find-problem")).toContainText("unclosed group");
  await picture(page, "find-wrong-pattern");
});

test("e and E go from error to error, and the strip shows where they are", async ({ page }) => {
  const { id, pipe } = await haystack("find-errors");
  await pipe.end();
  await page.goto(`${demoUrl()}/streams/${id}#s0`);
  await expect(row(page, 0)).toBeVisible();
  await expect(page.getByTestId("severity-strip")).toHaveAttribute("data-errors", String(HITS.length));
  for (const [key, hit] of [["e", 17], ["e", 30_000], ["e", 30_001], ["E", 30_000]] as const) {
    await page.keyboard.press(key);
    await expect(page.getByTestId("line-target")).toContainText(`s${hit}`);
    await expect(row(page, hit)).toBeVisible();
  }
  await page.keyboard.press("E");
  await expect(page.getByTestId("line-target")).toContainText("s17");
  await page.keyboard.press("E");
  await expect(page.getByTestId("find-note")).toHaveText("No error before this line");
});

test("lines over time zoom by a drag and lead to their place", async ({ page }) => {
  const { id, pipe } = await haystack("find-timeline");
  await pipe.end();
  await page.goto(`${demoUrl()}/streams/${id}`);
  await expect(row(page, LINES - 1)).toBeVisible();
  await find(page, NEEDLE);
  await page.getByTestId("timeline-toggle").click();
  const timeline = page.getByTestId("timeline");
  await expect(timeline).toHaveAttribute("data-counting", "false");
  const before = Number(await timeline.getAttribute("data-bucket-us"));
  expect(before).toBeGreaterThan(0);
  await picture(page, "find-timeline");
  const box = (await page.getByTestId("timeline-chart").boundingBox())!;
  await page.mouse.move(box.x + box.width * 0.4, box.y + 20);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.6, box.y + 20, { steps: 4 });
  await page.mouse.up();
  await expect.poll(async () => Number(await timeline.getAttribute("data-bucket-us"))).toBeLessThan(before);
  await page.getByTestId("timeline-reset").click();
  await expect.poll(async () => Number(await timeline.getAttribute("data-bucket-us"))).toBe(before);
  await page.mouse.click(box.x + 2, box.y + 20);
  await expect(row(page, 0)).toBeVisible();
});

for (const scheme of ["light", "dark"] as const) {
  test(`the find bar fits a window of 320 pixels (${scheme})`, async ({ page }) => {
    const { id, pipe } = await haystack(`find-narrow-${scheme}`);
    await pipe.end();
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width: 320, height: 700 });
    await page.goto(`${demoUrl()}/streams/${id}?find=needle`);
    await expect(page.getByTestId("find-count")).toHaveText("4 hits");
    await picture(page, `find-narrow-${scheme}`);
    const panel = (await page.getByTestId("find-panel").boundingBox())!;
    for (const name of ["find-input", "find-next", "find-only", "timeline-toggle", "find-close"]) {
      const box = (await page.getByTestId(name).boundingBox())!;
      expect(box.x + box.width, name).toBeLessThanOrEqual(panel.x + panel.width);
    }
  });
}
