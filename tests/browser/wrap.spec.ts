// Long lines that go on below instead of to the right: whatever works without that works with it.
import { expect, test, type Page } from "@playwright/test";

import { picture, row, streamId } from "./support/page.ts";
import { Pipe, demoUrl } from "./support/pipe.ts";

const LINES = 3_000;
const GROUP = { start: 1_000, end: 1_400 };
const NEEDLES = [300, 2_200];

/** Lines of very different lengths, some of which are one word. */
function line(sequence: number): string {
  if (sequence === GROUP.start) return "::group::Compile the workspace";
  if (sequence === GROUP.end) return "::endgroup::";
  const words = sequence % 5 === 0 ? "x".repeat((sequence * 37) % 900) : "compiled a part of it ".repeat((sequence * 7) % 40).trim();
  return `line ${sequence} ${words}${NEEDLES.includes(sequence) ? " needle" : ""}`;
}
const lines = (from: number, to: number): string => Array.from({ length: to - from }, (_, at) => `${line(from + at)}\n`).join("");

interface Seen {
  sequence: number;
  topPx: number;
  bottomPx: number;
}

/** The painted rows, of which none hides a part of another or reaches out of the view; those that are in view. */
async function seen(page: Page): Promise<Seen[]> {
  const { rows, view, overflowPx } = await page.getByTestId("log-view").evaluate((view) => {
    const rows = [...view.querySelectorAll<HTMLElement>("[data-testid=log-row]")].map((row) => {
      const { top, bottom } = row.getBoundingClientRect();
      return { sequence: Number(row.dataset.sequence), topPx: top, bottomPx: bottom, hiddenPx: row.scrollWidth - row.clientWidth };
    });
    const { top, bottom } = view.getBoundingClientRect();
    return { rows, view: { top, bottom }, overflowPx: view.scrollWidth - view.clientWidth };
  });
  expect(overflowPx, "nothing reaches out to the right").toBe(0);
  for (const [at, each] of rows.entries()) {
    expect(each.hiddenPx).toBe(0);
    if (at > 0) expect(Math.abs(each.topPx - rows[at - 1]!.bottomPx), `rows ${rows[at - 1]!.sequence} and ${each.sequence} touch`).toBeLessThan(0.5);
  }
  return rows.filter(({ topPx, bottomPx }) => bottomPx > view.top && topPx < view.bottom);
}

/** The end of the newest line stands at the lower edge of the view. */
async function expectEnd(page: Page, newest: number): Promise<void> {
  await expect(row(page, newest)).toBeInViewport();
  await expect
    .poll(() =>
      page.getByTestId("log-view").evaluate((view) => {
        const rows = view.querySelectorAll("[data-testid=log-row]");
        return Math.round(view.getBoundingClientRect().bottom - (rows[rows.length - 1]?.getBoundingClientRect().bottom ?? 0));
      }),
    )
    .toBe(8);
}

test("where lines do not wrap, their numbers stay while the text is scrolled to the side", async ({ page }) => {
  const pipe = new Pipe("wrap", "sideways");
  await pipe.write(lines(0, 300));
  await pipe.end();
  await page.goto(`${demoUrl()}/streams/${await streamId(pipe.selector, 300)}#s150`);
  await expect(row(page, 150)).toBeInViewport();
  const leftOf = (part: string) => row(page, 150).getByTestId(part).evaluate((element) => element.getBoundingClientRect().left);
  const [number, text] = [await leftOf("line-number"), await leftOf("log-text")];
  await page.getByTestId("log-view").hover();
  await page.mouse.wheel(400, 0);
  await expect.poll(() => leftOf("log-text")).toBe(text - 400);
  await expect.poll(() => leftOf("line-number")).toBe(number);
  await page.mouse.wheel(-400, 0);
  await expect.poll(() => leftOf("log-text")).toBe(text);
  expect(await leftOf("line-number")).toBe(number);
});

async function wrapped(page: Page, name: string): Promise<{ pipe: Pipe; url: string }> {
  const pipe = new Pipe("wrap", name);
  await pipe.write(lines(0, LINES));
  const url = `${demoUrl()}/streams/${await streamId(pipe.selector, LINES)}`;
  await page.goto(url);
  await expect(row(page, LINES - 1)).toBeVisible();
  await page.getByTestId("wrap-toggle").click();
  await expect(page.getByTestId("wrap-toggle")).toHaveAttribute("aria-pressed", "true");
  return { pipe, url };
}

test("long lines wrap, are followed, and stay where they were when they no longer wrap", async ({ page }) => {
  const { pipe } = await wrapped(page, "wrapped");
  const view = page.getByTestId("log-view");
  await expect(view).toHaveAttribute("data-following", "true");
  await expectEnd(page, LINES - 1);
  const high = (await seen(page)).filter(({ topPx, bottomPx }) => bottomPx - topPx > 30);
  expect(high.length, "some rows are higher than one line").toBeGreaterThan(3);
  await picture(page, "wrap");

  await pipe.write(lines(LINES, LINES + 200));
  await expectEnd(page, LINES + 199);
  await seen(page);

  // What is read stays where it is while rows above it turn out to be of another height.
  await view.hover();
  for (let turn = 0; turn < 12; turn += 1) {
    const before = await seen(page);
    await page.mouse.wheel(0, -700);
    await expect.poll(async () => (await seen(page))[0]?.sequence).toBeLessThan(before[0]!.sequence);
    const [first] = await seen(page);
    await pipe.write(lines(LINES + 200 + turn, LINES + 201 + turn));
    await expect(page.getByTestId("new-lines")).toHaveAttribute("data-new-lines", String(turn + 1));
    expect((await seen(page))[0]).toEqual(first);
  }
  await expect(view).toHaveAttribute("data-following", "false");

  // The key, and lnav's; and the same rows are in view.
  const [top] = await seen(page);
  await page.keyboard.press("Z");
  await expect(page.getByTestId("wrap-toggle")).toHaveAttribute("aria-pressed", "false");
  await expect(row(page, top!.sequence)).toBeInViewport();
  await expect.poll(() => view.evaluate((element) => element.scrollWidth > element.clientWidth)).toBe(true);
  await page.keyboard.press("Alt+w");
  await expect(row(page, top!.sequence)).toBeInViewport();
  await seen(page);
  await page.getByTestId("new-lines").click();
  await expectEnd(page, LINES + 211);
  await pipe.end();
});

test("links, places, hits, groups and copies work where lines wrap, also in a narrow window and in the dark", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const { pipe, url } = await wrapped(page, "wrapped-links");
  await pipe.end();

  // The choice lasts; a link opens at its line.
  await page.goto("about:blank");
  await page.goto(`${url}#s700-s702`);
  await expect(page.getByTestId("wrap-toggle")).toHaveAttribute("aria-pressed", "true");
  await expect(row(page, 700)).toBeInViewport();
  await expect(page.locator("[data-testid=log-row].isTarget")).toHaveCount(3);
  await seen(page);

  await page.keyboard.press(":");
  await page.keyboard.type("50%");
  await page.keyboard.press("Enter");
  await expect(row(page, LINES / 2)).toBeInViewport();
  await seen(page);

  // Within a group its header stays above the lines.
  await page.keyboard.press(":");
  await page.keyboard.type("1200");
  await page.keyboard.press("Enter");
  await expect(row(page, 1_200)).toBeInViewport();
  await expect(page.getByTestId("sticky-groups").getByTestId("group")).toHaveText(["Compile the workspace"]);
  await picture(page, "wrap-in-group");

  await page.keyboard.press("/");
  await page.getByTestId("find-input").fill("needle");
  await expect(page.getByTestId("find-count")).toHaveText(`${NEEDLES.length} hits`);
  await page.getByTestId("log-view").locator("[tabindex]").focus();
  for (const [key, hit] of [["n", NEEDLES[1]!], ["N", NEEDLES[0]!], ["n", NEEDLES[1]!]] as const) {
    await page.keyboard.press(key);
    await expect(page.getByTestId("line-target")).toContainText(`s${hit}`);
    await expect(row(page, hit)).toBeInViewport();
    await seen(page);
  }

  // A wrapped line is one line.
  const hit = NEEDLES[1]!;
  await row(page, hit).getByTestId("log-text").evaluate((element) => getSelection()?.selectAllChildren(element));
  await page.keyboard.press("Control+c");
  await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe(line(hit));
  await page.evaluate(() => getSelection()?.removeAllRanges());

  await page.setViewportSize({ width: 320, height: 640 });
  await expect(row(page, hit)).toBeInViewport();
  await expect.poll(async () => (await seen(page)).length).toBeGreaterThan(1);
  await picture(page, "wrap-narrow");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 1280, height: 800 });
  await expect(row(page, hit)).toBeInViewport();
  await seen(page);
  await picture(page, "wrap-dark");
});
