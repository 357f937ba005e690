// A proxy that buffers between relay and browser is found out, said, and worked around.
import { expect, test } from "@playwright/test";

import { numberedLines } from "./support/logs.ts";
import { picture, row } from "./support/page.ts";
import { BufferingProxy } from "./support/proxy.ts";
import { Relay } from "./support/own-relay.ts";

let relay: Relay;
test.beforeAll(async () => {
  relay = await Relay.start();
});
test.afterAll(async () => relay.stop());

test("a proxy that waits for 64 KiB: the page says so, reads by pages, and streams again once it can", async ({ page }) => {
  test.setTimeout(240_000);
  const proxy = await BufferingProxy.start(relay.url, { bytes: 65_536 });
  const pipe = relay.pipe("build-1", "held");
  await pipe.write(numberedLines(0, 10));
  const { streamId } = await relay.stream("source=held", 10);
  await page.goto(`${proxy.url}/streams/${streamId}`);
  await expect(page.getByTestId("held-back")).toBeVisible();
  await expect(page.getByTestId("connection-state")).toHaveText("live, read every second");
  await expect(row(page, 9)).toBeVisible();
  await pipe.write(numberedLines(10, 15));
  await expect(row(page, 14)).toBeVisible();
  await expect(page.getByTestId("catalog-state")).toHaveAttribute("data-state", "complete");
  await picture(page, "held-back");

  proxy.holding = null;
  await expect(page.getByTestId("held-back")).toBeHidden({ timeout: 120_000 });
  await expect(page.getByTestId("connection-state")).toHaveText("live");
  await pipe.write(numberedLines(15, 20));
  await expect(row(page, 19)).toBeVisible();
  const shown = await page.getByTestId("log-row").evaluateAll((rows) => rows.map((each) => Number((each as HTMLElement).dataset.sequence)));
  expect(shown).toEqual(Array.from({ length: 20 }, (_, at) => at));
  await pipe.end();
  await proxy.stop();
});

test("a proxy that lets heartbeats through in bunches is found out too", async ({ page }) => {
  test.setTimeout(240_000);
  const proxy = await BufferingProxy.start(relay.url, { everyMs: 22_000 });
  const pipe = relay.pipe("build-1", "bunched");
  await pipe.write(numberedLines(0, 10));
  const { streamId } = await relay.stream("source=bunched", 10);
  // The page itself has to come through in reasonable time.
  proxy.holding = null;
  await page.goto(`${proxy.url}/streams/${streamId}`);
  await expect(row(page, 9)).toBeVisible();
  proxy.holding = { everyMs: 22_000 };
  await expect(page.getByTestId("held-back")).toBeVisible({ timeout: 150_000 });
  await pipe.end();
  await proxy.stop();
});
