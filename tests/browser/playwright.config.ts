// The browser tests run in the system's Chromium against the demo, which the global set-up starts.
import { defineConfig } from "@playwright/test";

import { chromiumPath } from "./support/chromium.ts";

const isRoot = process.getuid?.() === 0;

export default defineConfig({
  testDir: ".",
  outputDir: "../artefacts/browser",
  globalSetup: "./support/global-setup.ts",
  // One relay and two cores: one test at a time.
  workers: 1,
  fullyParallel: false,
  forbidOnly: Boolean(process.env.CI),
  retries: 0,
  timeout: 120_000,
  expect: { timeout: 30_000 },
  reporter: [["list"]],
  use: {
    viewport: { width: 1280, height: 800 },
    trace: "retain-on-failure",
    launchOptions: {
      executablePath: chromiumPath(),
      // Chromium's sandbox does not work for root.
      args: isRoot ? ["--no-sandbox"] : [],
    },
  },
});
