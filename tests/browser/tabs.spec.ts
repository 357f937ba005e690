// Panes and tabs share one subscription: many tabs work over HTTP/1.1, and a pane that comes costs no line.
import { type Page, expect, test } from "@playwright/test";

import { numberedLines } from "./support/logs.ts";
import { lastSequence, picture, row } from "./support/page.ts";
import { Relay } from "./support/own-relay.ts";

let relay: Relay;
test.beforeAll(async () => {
  relay = await Relay.start();
});
test.afterAll(async () => relay.stop());

/** Sequences of the rows on screen, in the order in which they stand. */
const sequences = (page: Page, streamId: bigint): Promise<number[]> =>
  page
    .locator(`[data-testid=log-row][data-stream-id="${streamId}"]`)
    .evaluateAll((rows) => rows.map((each) => Number((each as HTMLElement).dataset.sequence)).sort((a, b) => a - b));

test("ten tabs over HTTP/1.1 all get every line, through one subscription", async ({ browser }) => {
  test.setTimeout(240_000);
  const pipe = relay.pipe("build-1", "shared");
  await pipe.write(numberedLines(0, 20));
  const { streamId } = await relay.stream("source=shared", 20);
  const context = await browser.newContext();
  const pages: Page[] = [];
  for (let tab = 0; tab < 10; tab += 1) {
    const page = await context.newPage();
    await page.goto(`${relay.url}/streams/${streamId}`);
    await expect(row(page, 19), `tab ${tab} shows history`).toBeVisible();
    pages.push(page);
  }
  const [first] = pages;
  const protocol = await first!.evaluate(() => (performance.getEntriesByType("navigation")[0] as PerformanceNavigationTiming).nextHopProtocol);
  expect(protocol).toBe("http/1.1");
  await pipe.write(numberedLines(20, 25));
  for (const page of pages) {
    await expect(row(page, 24)).toBeVisible();
    expect(await sequences(page, streamId)).toEqual(Array.from({ length: 25 }, (_, at) => at));
    await expect(page.getByTestId("connection-state")).toHaveText("live");
  }
  expect(await relay.metric("millstream_subscriptions")).toBe(1);
  expect(await relay.metric("millstream_watches")).toBe(1);

  // Tabs that are closed let go.
  for (const page of pages.splice(0, 9)) await page.close({ runBeforeUnload: true });
  await pipe.write(numberedLines(25, 30));
  await expect(row(pages[0]!, 29)).toBeVisible();
  await context.close();
  await expect.poll(() => relay.metric("millstream_subscriptions")).toBe(0);
  await pipe.end();
});

test("panes that come and go while lines flow cost no line of the others", async ({ page }) => {
  const [left, right] = [relay.pipe("build-1", "left"), relay.pipe("build-2", "right")];
  await left.write(numberedLines(0, 5));
  await right.write(numberedLines(0, 5));
  const leftId = (await relay.stream("source=left", 5)).streamId;
  const rightId = (await relay.stream("source=right", 5)).streamId;
  await page.setViewportSize({ width: 1400, height: 1400 });
  await page.goto(`${relay.url}/streams/${leftId}`);
  await expect(row(page, 4)).toBeVisible();
  let written = 5;
  const flow = async (lines: number): Promise<void> => {
    for (let at = 0; at < lines; at += 1) {
      await left.write(numberedLines(written, written + 1));
      await right.write(numberedLines(written, written + 1));
      written += 1;
    }
  };
  const item = page.locator(`[data-testid=stream-item][data-stream-id="${rightId}"]`);
  for (let round = 0; round < 3; round += 1) {
    await flow(3);
    await item.hover();
    await item.getByTestId("stream-beside").click();
    await flow(3);
    await expect(page.getByTestId("log-pane")).toHaveCount(2);
    await expect(page.locator(`[data-testid=log-row][data-stream-id="${rightId}"][data-sequence="${written - 1}"]`)).toBeVisible();
    if (round === 0) await picture(page, "panes-side-by-side");
    await page.getByTestId("close-pane").nth(1).click();
    await expect(page.getByTestId("log-pane")).toHaveCount(1);
  }
  await expect(row(page, written - 1)).toBeVisible();
  expect(await sequences(page, leftId)).toEqual(Array.from({ length: written }, (_, at) => at));
  expect(await relay.metric("millstream_subscriptions")).toBe(1);
  await left.end();
  await right.end();
});

test("where tabs cannot share, too many of them are told so", async ({ browser }) => {
  const pipe = relay.pipe("build-1", "alone");
  await pipe.write(numberedLines(0, 5));
  const { streamId } = await relay.stream("source=alone", 5);
  const context = await browser.newContext();
  // Chrome for Android, for one, has no shared workers.
  await context.addInitScript(() => {
    delete (globalThis as { SharedWorker?: unknown }).SharedWorker;
  });
  const pages = [await context.newPage(), await context.newPage()];
  for (const page of pages) {
    await page.goto(`${relay.url}/streams/${streamId}`);
    await expect(row(page, 4)).toBeVisible();
    await expect(page.getByTestId("too-many-tabs")).toBeHidden();
  }
  const third = await context.newPage();
  await third.goto(relay.url);
  for (const page of [...pages, third]) await expect(page.getByTestId("too-many-tabs")).toContainText("3 tabs of these pages are open");
  await picture(pages[0]!, "too-many-tabs");
  await third.close({ runBeforeUnload: true });
  await expect(pages[0]!.getByTestId("too-many-tabs")).toBeHidden();
  await pipe.write(numberedLines(5, 6));
  await expect.poll(() => lastSequence(pages[1]!)).toBe(5);
  await context.close();
  await pipe.end();
});
