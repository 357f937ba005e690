// The demo's page in a real browser.
import { expect, test } from "@playwright/test";

import { numberedLine, numberedLines } from "./support/logs.ts";
import { HOSTS, busyStreams, lastSequence, picture, row, streamId } from "./support/page.ts";
import { Pipe, demoUrl } from "./support/pipe.ts";

const MILLION = 1_000_000;

test("lines of all three hosts arrive, and a reload shows everything again", async ({ page }) => {
  const problems: string[] = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(demoUrl());
  for (const host of HOSTS) {
    await expect(page.locator(`[data-testid=host][data-host="${host}"]`)).toBeVisible();
  }
  await picture(page, "welcome");

  for (const host of HOSTS) {
    const streams = page.locator(`[data-testid=host][data-host="${host}"] [data-testid=stream-item]`);
    await streams.first().getByRole("link").or(streams.first().getByRole("button")).first().click();
    await expect(page.getByTestId("log-row").first()).toBeVisible();
  }
  const ids = await busyStreams();
  await page.goto(`${demoUrl()}/streams/${ids}`);
  for (const id of ids.split(",")) {
    await expect(page.locator(`[data-testid=log-row][data-stream-id="${id}"]`).first()).toBeAttached();
  }
  await picture(page, "three-hosts");

  // One stream, by now and after a reload: the same first line, and it goes on.
  const rotating = await streamId("host=ci-runner,source=file", 600);
  await page.goto(`${demoUrl()}/streams/${rotating}`);
  await expect.poll(() => lastSequence(page)).toBeGreaterThan(598);
  const before = await lastSequence(page);
  await expect.poll(() => lastSequence(page), { message: "it follows" }).toBeGreaterThan(before);
  await page.reload();
  await expect.poll(() => lastSequence(page), { message: "it is all there" }).toBeGreaterThan(before);
  await page.goto(`${demoUrl()}/streams/${rotating}#s0`);
  await expect(row(page, 0)).toBeVisible();
  await picture(page, "one-stream-from-its-beginning");
  expect(problems).toEqual([]);
});

test("a stream of a million lines opens at its end and scrolls back to line 0", async ({ page }) => {
  test.setTimeout(240_000);
  const pipe = new Pipe("archive", "million");
  for (let from = 0; from < MILLION; from += 10_000) {
    await pipe.write(numberedLines(from, from + 10_000));
  }
  await pipe.end();
  const id = await streamId(pipe.selector, MILLION);
  await page.goto(`${demoUrl()}/streams/${id}`);
  await expect(row(page, MILLION - 1)).toBeVisible();
  await expect(row(page, MILLION - 1).getByTestId("log-text")).toHaveText(numberedLine(MILLION - 1));
  await picture(page, "million-end");

  // Up by the wheel: older lines are read while scrolling.
  await page.getByTestId("log-view").hover();
  await page.mouse.wheel(0, -20_000);
  await expect.poll(() => lastSequence(page)).toBeLessThan(MILLION - 500);
  await picture(page, "million-scrolled");

  await page.keyboard.press("Home");
  await expect(row(page, 0)).toBeVisible();
  await expect(row(page, 0).getByTestId("log-text")).toHaveText(numberedLine(0));
  await picture(page, "million-begin");
  // Never more rows than a window of them.
  expect(await page.getByTestId("log-row").count()).toBeLessThan(1_000);

  await page.keyboard.press("End");
  await expect(row(page, MILLION - 1)).toBeVisible();
});

test("a link to a line opens there", async ({ page }) => {
  const pipe = new Pipe("archive", "linked");
  await pipe.write(numberedLines(0, 5_000));
  await pipe.end();
  const id = await streamId(pipe.selector, 5_000);
  await page.goto(`${demoUrl()}/streams/${id}#s1234`);
  await expect(row(page, 1_234)).toBeInViewport();
  await expect(row(page, 1_234).getByTestId("log-text")).toHaveText(numberedLine(1_234));
  await picture(page, "permalink");
  await row(page, 1_240).getByTestId("line-number").click();
  await expect(page).toHaveURL(/#s1240$/);
});

test("log text never becomes markup", async ({ page }) => {
  const hostile = [
    `<img src=x onerror="window.hacked = 'img'">`,
    `<script>window.hacked = "script"</script>`,
    `\u001b[31m<b onmouseover="window.hacked = 'b'">red</b>\u001b[0m`,
    `\u001b]8;;javascript:window.hacked='link'\u0007click\u001b]8;;\u0007`,
    `&lt;not an entity&gt; &amp; &#60;`,
  ];
  const pipe = new Pipe("<img src=x onerror=alert(1)>", "hostile");
  await pipe.write(`${hostile.join("\n")}\n`);
  await pipe.end();
  const id = await streamId(pipe.selector, hostile.length);
  await page.goto(`${demoUrl()}/streams/${id}`);
  const text = (sequence: number) => row(page, sequence).getByTestId("log-text");
  await expect(text(0)).toHaveText(hostile[0]!);
  await expect(text(1)).toHaveText(hostile[1]!);
  await expect(text(2)).toHaveText(`<b onmouseover="window.hacked = 'b'">red</b>`);
  await expect(text(4)).toHaveText(hostile[4]!);
  await text(2).hover();
  expect(await page.getByTestId("log-view").locator("img, script, b, a[href^='javascript']").count()).toBe(0);
  expect(await page.evaluate(() => (window as { hacked?: string }).hacked)).toBeUndefined();
  await picture(page, "hostile-text");
});

test("scrolling up pauses, and a button with the number of new lines returns", async ({ page }) => {
  const pipe = new Pipe("archive", "paused");
  await pipe.write(numberedLines(0, 500));
  const id = await streamId(pipe.selector, 500);
  await page.goto(`${demoUrl()}/streams/${id}`);
  await expect(row(page, 499)).toBeVisible();
  await page.getByTestId("log-view").hover();
  await page.mouse.wheel(0, -3_000);
  await expect(row(page, 499)).not.toBeInViewport();
  await pipe.write(numberedLines(500, 540));
  const button = page.getByTestId("new-lines");
  await expect(button).toHaveAttribute("data-new-lines", "40");
  await expect(row(page, 539)).not.toBeInViewport();
  await picture(page, "paused");
  await button.click();
  await expect(row(page, 539)).toBeInViewport();
  await expect(button).toBeHidden();
  await pipe.write(numberedLines(540, 550));
  await expect(row(page, 549)).toBeInViewport();
  await pipe.end();
});

test("it is readable in the dark and in the light", async ({ page }) => {
  const ids = await busyStreams();
  for (const colorScheme of ["dark", "light"] as const) {
    await page.emulateMedia({ colorScheme });
    await page.goto(`${demoUrl()}/streams/${ids}`);
    await expect(page.getByTestId("log-row").first()).toBeVisible();
    const brightness = await page.getByTestId("log-view").evaluate((view) => {
      // The nearest background that is painted at all.
      const isClear = (element: Element) => /^rgba\(.*, 0\)$|^transparent$/.test(getComputedStyle(element).backgroundColor);
      let painted: Element = view;
      while (isClear(painted) && painted.parentElement !== null) {
        painted = painted.parentElement;
      }
      const canvas = document.createElement("canvas").getContext("2d")!;
      canvas.fillStyle = getComputedStyle(painted).backgroundColor;
      canvas.fillRect(0, 0, 1, 1);
      return canvas.getImageData(0, 0, 1, 1).data[0]!;
    });
    expect(brightness > 128).toBe(colorScheme === "light");
    await picture(page, `three-hosts-${colorScheme}`);
  }
});
