// Not part of the tests: run by `cargo xtask bench browser`.
import { defineConfig } from "@playwright/test";

export default defineConfig({
  testDir: ".",
  testMatch: "*.bench.ts",
  outputDir: "../../artefacts/bench",
  workers: 1,
  reporter: [["line"]],
});
