// What axe finds wrong with a page, worst first.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { type Page, expect } from "@playwright/test";
import type { AxeResults } from "axe-core";

const source = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Fails when axe finds a serious violation in the page as it stands. */
export async function expectAccessible(page: Page, what: string): Promise<void> {
  await page.evaluate(source);
  const { violations } = await page.evaluate(() => (globalThis as unknown as { axe: { run(): Promise<AxeResults> } }).axe.run());
  const serious = violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 160)} (${failureSummary})`).join(" | ")}`);
  expect.soft(serious, `${what}: axe's serious violations`).toEqual([]);
}

/** Fails when the page is wider than its window. */
export async function expectNoSideways(page: Page, what: string): Promise<void> {
  const wide = await page.evaluate(() => {
    const limit = document.documentElement.clientWidth + 1;
    const isClipped = (element: Element): boolean => {
      for (let parent = element.parentElement; parent !== null && parent !== document.body; parent = parent.parentElement) {
        if (/auto|scroll|hidden|clip/.test(getComputedStyle(parent).overflowX) && parent.getBoundingClientRect().right <= limit) return true;
      }
      return false;
    };
    return [...document.querySelectorAll("main *, aside *, dialog[open] *")]
      .filter((element) => element.getClientRects().length > 0 && element.getBoundingClientRect().right > limit && !isClipped(element))
      .map((element) => `${element.tagName} ${element.className}`.slice(0, 60));
  });
  expect.soft(wide, `${what}: what sticks out`).toEqual([]);
}
