// Acting on a build from the page: start, stop with its grandchildren, edit, run again, revert; and being refused.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type Page, expect, test } from "@playwright/test";

import { expectAccessible, expectNoSideways } from "./support/axe.ts";
import { Relay } from "./support/own-relay.ts";
import { picture } from "./support/page.ts";

let relay: Relay;
let dir: string;

// It leaves a grandchild in a session of its own that ignores what it can.
const SCRIPT = `(setsid sh -c 'trap "" INT TERM; echo $$ > far; while :; do sleep 1; done' >/dev/null 2>&1 &); echo building; sleep 1000`;

test.beforeAll(async () => {
  relay = await Relay.start();
  dir = mkdtempSync(join(tmpdir(), "millstream-control-"));
  const config = join(dir, "agent.toml");
  const source = (name: string, script: string) =>
    `[sources.${name}]\nplugin = "exec"\ncommand = ["sh", "-c", ${JSON.stringify(script)}]\ncwd = ${JSON.stringify(dir)}\nrun_at_start = false\nstop_with_agent = true\n`;
  writeFileSync(
    config,
    `${source("nightly", SCRIPT)}${source("fixed", "echo fixed; sleep 1000")}
[control.nightly]
allow = ["start", "stop", "restart", "set_command"]
command_pattern = "echo [a-z ]+"
[control.fixed]
allow = ["start"]
`,
  );
  relay.agent("build-1", ["--config", config]);
});

test.afterAll(async () => {
  await relay.stop();
  rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
});

const idle = (page: Page, source: string) => page.locator(`[data-testid=idle-source][data-source=${source}]`);
const lines = (page: Page) => page.getByTestId("log-view");

function isAlive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

test("a build is started, stopped with its grandchildren, edited, run again and reverted", async ({ page }) => {
  await page.goto(relay.url);
  await expect(idle(page, "nightly")).toBeVisible();
  await picture(page, "control-idle");
  await idle(page, "nightly").getByTestId("source-start").click();
  await expect(idle(page, "nightly")).toHaveCount(0);
  const first = await relay.stream("source=nightly", 2);
  await expect(page, "who starts a run sees it").toHaveURL(`${relay.url}/streams/${first.streamId}`);
  await expect(lines(page)).toContainText("building");
  await expect.poll(() => existsSync(join(dir, "far")) && readFileSync(join(dir, "far"), "utf8").endsWith("\n")).toBe(true);
  const grandchild = Number(readFileSync(join(dir, "far"), "utf8"));
  expect(isAlive(grandchild)).toBe(true);
  await picture(page, "control-running");
  await expectAccessible(page, "a run with controls");

  await page.getByTestId("run-stop").click();
  await expect(page.getByTestId("stop-sheet")).toContainText("SIGINT");
  await picture(page, "control-stop-asks");
  await page.getByTestId("stop-confirm").click();
  await expect(page.getByTestId("run-stopping")).toBeVisible();
  await expect(lines(page)).toContainText("run-stopping: SIGINT");
  await picture(page, "control-stopping");
  await expect(page.getByTestId("run-start")).toBeVisible({ timeout: 60_000 });
  expect(isAlive(grandchild)).toBe(false);
  await expect(page.getByTestId("connection-state")).toContainText("ended by SIGINT");

  // A command that the agent does not take, then one that it does.
  await page.getByTestId("run-edit").click();
  await expect(page.getByTestId("command-now")).toContainText("sh -c");
  await page.getByTestId("command-text").fill("reboot now");
  await page.getByTestId("command-save").click();
  await expect(page.getByTestId("command-problem")).toContainText("command_pattern");
  await picture(page, "control-command-refused");
  await page.getByTestId("command-text").fill("echo edited by hand");
  await expect(page.getByTestId("command-new")).toContainText("edited");
  await picture(page, "control-command");
  await expectAccessible(page, "the sheet of a command");
  await page.getByTestId("command-run").click();
  await expect(page.getByTestId("command-sheet")).toBeHidden();
  const second = await relay.stream("source=nightly", 1, (stream) => stream.streamId > first.streamId && stream.end !== undefined);
  await expect(page, "the new run stands where the old one stood").toHaveURL(`${relay.url}/streams/${second.streamId}`);
  await expect(lines(page)).toContainText("edited by hand");
  await expect(lines(page)).toContainText("set this command");

  await page.getByTestId("run-edit").click();
  await expect(page.getByTestId("command-configured")).toContainText("sh -c");
  await page.getByTestId("command-revert").click();
  await expect(page.getByTestId("command-sheet")).toBeHidden();
  await page.getByTestId("run-edit").click();
  await expect(page.getByTestId("command-now")).toContainText("sh -c");
});

test("what an agent does not allow has no button, and narrow windows keep what there is", async ({ page }) => {
  await page.goto(relay.url);
  await idle(page, "fixed").getByTestId("source-start").click();
  const stream = await relay.stream("source=fixed", 2);
  await page.setViewportSize({ width: 320, height: 700 });
  await page.goto(`${relay.url}/streams/${stream.streamId}`);
  await expect(lines(page)).toContainText("fixed");
  for (const missing of ["run-stop", "run-restart", "run-edit"]) await expect(page.getByTestId(missing)).toHaveCount(0);
  await expectNoSideways(page, "a run at 320 pixels");
  await picture(page, "control-narrow");
});
