// The picture at the top of the README. The file's name puts it first: afterwards other tests' hosts are listed.
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { expect, test } from "@playwright/test";

import { repository } from "./support/binaries.ts";
import { busyStreams } from "./support/page.ts";
import { demoUrl } from "./support/pipe.ts";

test("the README's first screen", async ({ page }) => {
  test.skip(!process.env.MILLSTREAM_UPDATE_SCREENSHOT, "taken by `cargo xtask test --update-screenshot`");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.goto(`${demoUrl()}/streams/${await busyStreams()}`);
  await expect(page.getByTestId("log-row").nth(30)).toBeAttached();
  const dir = join(repository, "docs/images");
  mkdirSync(dir, { recursive: true });
  await page.screenshot({ path: join(dir, "first-screen.png") });
});
