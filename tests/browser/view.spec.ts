// The view itself: structure, terminal truth, links, copies, places, and what the page may load.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { expect, test, type Page } from "@playwright/test";

import { repository } from "./support/binaries.ts";
import { numberedLine, numberedLines } from "./support/logs.ts";
import { picture, row, streamId } from "./support/page.ts";
import { Pipe, demoUrl } from "./support/pipe.ts";

const recorded = (name: string): string => readFileSync(join(repository, "web-client/testdata", name), "utf8");
const text = (page: Page, sequence: number) => row(page, sequence).getByTestId("log-text");
const texts = (page: Page) => page.getByTestId("log-text").evaluateAll((all) => all.map((each) => (each.textContent ?? "").trimEnd()));

/** A stream that is followed in the page before its lines are written: its structure comes with them. */
async function followed(page: Page, name: string): Promise<Pipe> {
  const pipe = new Pipe("structure", name);
  await pipe.write("first line\n");
  const id = await streamId(pipe.selector, 1);
  await page.goto(`${demoUrl()}/streams/${id}`);
  await expect(row(page, 0)).toBeVisible();
  return pipe;
}

test("groups fold, show their duration and their errors, and their headers stay in view", async ({ page }) => {
  const pipe = await followed(page, "groups");
  const many = Array.from({ length: 200 }, (_, at) => `   Compiling crate-${at} v1.0.${at}`).join("\n");
  await pipe.write(`::group::Build\n::group::Compile the workspace\n${many}\n::endgroup::\n::error file=src/wheel.rs,line=12,col=9::cannot find value \`teeth\`\n::endgroup::\n`);
  await pipe.write("::group::Clean up\nremoving\n::endgroup::\nlast line\n");
  await expect(text(page, 209)).toHaveText("last line");
  const header = (sequence: number) => row(page, sequence).getByTestId("group");
  await page.keyboard.press("Home");
  await expect(header(1)).toHaveAttribute("aria-expanded", "true");
  await expect(row(page, 1).getByTestId("group-errors")).toHaveText("1 error");
  await expect(row(page, 1).getByTestId("group-duration")).toHaveText(/ (ms|s|min)/);

  // By pointer: the lines below are one row.
  await header(2).click();
  await expect(row(page, 3)).toHaveCount(0);
  await expect(row(page, 204)).toBeVisible();
  await expect(row(page, 204)).toContainText("cannot find value `teeth`");
  await expect(row(page, 204)).toContainText("src/wheel.rs:12:9");
  await picture(page, "groups-folded");
  await header(2).click();
  await expect(row(page, 3)).toBeVisible();

  // Within both groups their headers stay above the lines.
  await page.getByTestId("log-view").hover();
  await page.mouse.wheel(0, 2_000);
  const sticky = page.getByTestId("sticky-groups").getByTestId("group");
  await expect(sticky).toHaveText(["Build", "Compile the workspace"]);
  await picture(page, "groups-sticky");
  await sticky.nth(1).click();
  await expect(row(page, 204)).toBeVisible();

  // All at once: what holds an error stays open.
  await page.getByTestId("fold-all").click();
  await expect(header(206)).toHaveAttribute("aria-expanded", "false");
  await expect(header(1)).toHaveAttribute("aria-expanded", "true");
  await picture(page, "groups-all-folded");
  await page.getByTestId("unfold-all").click();
  // The lines that came back push it out of view.
  await page.keyboard.press("End");
  await expect(header(206)).toHaveAttribute("aria-expanded", "true");
  await pipe.end();
});

test("a link into a closed group opens it", async ({ page }) => {
  const pipe = await followed(page, "folded-link");
  await pipe.write(`::group::Set up\n${numberedLines(0, 50)}::endgroup::\nafter\n`);
  await expect(text(page, 53)).toHaveText("after");
  await page.keyboard.press("Home");
  await row(page, 1).getByTestId("group").click();
  await expect(row(page, 20)).toHaveCount(0);
  await page.evaluate(() => (location.hash = "#s20"));
  await expect(row(page, 20)).toBeInViewport();
  await expect(row(page, 20)).toHaveClass(/isTarget/);
  await pipe.end();
});

test("bars that redraw each other are the rows of a screen", async ({ page }) => {
  for (const [name, shown] of [
    ["tqdm-bars", ["wrote a line above the bars", "layer 3: 100%|██████████████| 20/20 [00:00<00:00, 82.41it/s]"]],
    ["rich-progress", ["note a link", "pull layer 2 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 100% 0:00:00"]],
  ] as const) {
    const pipe = new Pipe("terminal", name);
    await pipe.write(recorded(`${name}.ansi.log`));
    await pipe.end();
    await page.goto(`${demoUrl()}/streams/${await streamId(pipe.selector, 4)}`);
    await expect(page.getByText(shown[0])).toBeVisible();
    const rows = (await texts(page)).filter((each) => each !== "");
    expect(rows[0]).toBe(shown[0]);
    expect(rows.at(-1)).toBe(shown[1]);
    expect(rows.length).toBeLessThan(8);
    await picture(page, `bars-${name}`);
  }
  // The recording holds a link that the program made, with its own text.
  const link = page.locator("[data-testid=log-text] a", { hasText: "a link" });
  await expect(link).toHaveAttribute("href", "https://example.com/a");
  await expect(link).toHaveAttribute("rel", /noopener/);
});

test("addresses can be followed, and places in sources where the relay says how", async ({ page }) => {
  await page.route("**/api/settings", (route) => route.fulfill({ json: { link_templates: ["https://git.example.com/{label.missing}/{path}", "https://git.example.com/{label.host}/{path}#L{line}"] } }));
  const pipe = new Pipe("links", "links");
  await pipe.write("see https://example.com/docs?a=1.\n  --> src/main.rs:12:5\njavascript:alert(1)\n\u001b]8;;javascript:alert(2)\u0007hidden\u001b]8;;\u0007\n");
  await pipe.end();
  await page.goto(`${demoUrl()}/streams/${await streamId(pipe.selector, 4)}`);
  await expect(text(page, 0).locator("a")).toHaveAttribute("href", "https://example.com/docs?a=1");
  await expect(text(page, 0).locator("a")).toHaveAttribute("rel", "noopener noreferrer");
  await expect(text(page, 1).locator("a")).toHaveAttribute("href", "https://git.example.com/links/src/main.rs#L12");
  expect(await page.locator("[data-testid=log-text] a").count()).toBe(2);
  await picture(page, "links");
});

test("a range of lines is chosen with Shift, linked, copied and downloaded", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const pipe = new Pipe("ranges", "ranges");
  await pipe.write(`${numberedLines(0, 3_000)}\u001b[31mred\u001b[0m\n50 %\r99 %\n`);
  await pipe.end();
  const id = await streamId(pipe.selector, 3_002);
  await page.goto(`${demoUrl()}/streams/${id}#s120`);
  await expect(row(page, 120)).toBeInViewport();
  await row(page, 126).getByTestId("line-number").click({ modifiers: ["Shift"] });
  await expect(page).toHaveURL(/#s120-s126$/);
  await expect(page.locator("[data-testid=log-row].isTarget")).toHaveCount(7);
  await picture(page, "range");

  // The same link elsewhere: in place, not following, all of it marked.
  await page.goto("about:blank");
  await page.goto(`${demoUrl()}/streams/${id}#s120-s126`);
  await expect(row(page, 123)).toBeInViewport();
  await expect(page.locator("[data-testid=log-row].isTarget")).toHaveCount(7);
  await expect(page.getByTestId("log-view")).toHaveAttribute("data-following", "false");

  await page.getByTestId("copy-lines").click();
  await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe(numberedLines(120, 127).trimEnd());
  // Where it is kept is the browser's affair, and one without a window does not always keep it: what counts is that the
  // click downloads, and what there is to download.
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByTestId("download-lines").click()]);
  const answer = await page.request.get(download.url());
  expect(answer.headers()["content-disposition"]).toContain("attachment");
  expect(await answer.text()).toBe(numberedLines(120, 127));

  // What a terminal shows, not what was sent.
  await page.goto(`${demoUrl()}/streams/${id}#s3000-s3001`);
  await expect(row(page, 3_001)).toBeVisible();
  await page.getByTestId("copy-lines").click();
  await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe("red\n99 %");
});

test("a selection that reaches beyond the painted rows copies all of its lines", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const pipe = new Pipe("selections", "selections");
  await pipe.write(numberedLines(0, 900));
  await pipe.end();
  await page.goto(`${demoUrl()}/streams/${await streamId(pipe.selector, 900)}#s100`);
  await expect(row(page, 100)).toBeInViewport();
  await text(page, 100).evaluate((element) => getSelection()?.setBaseAndExtent(element, 0, element, 0));
  await text(page, 101).evaluate((element) => getSelection()?.extend(element, 0));
  await page.getByTestId("log-view").hover();
  await page.mouse.wheel(0, 8_000);
  await expect(row(page, 480)).toBeAttached();
  await expect(row(page, 300), "rows between are not painted").toHaveCount(0);
  await text(page, 480).evaluate((element) => getSelection()?.extend(element, element.childNodes.length));
  await page.keyboard.press("Control+c");
  await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe(numberedLines(100, 481).trimEnd());
});

test("lines, times and percentages can be gone to, and a line that is not there is said", async ({ page }) => {
  const pipe = new Pipe("places", "places");
  await pipe.write(numberedLines(0, 20_000));
  await pipe.end();
  const id = await streamId(pipe.selector, 20_000);
  await page.goto(`${demoUrl()}/streams/${id}`);
  await expect(row(page, 19_999)).toBeVisible();
  const goTo = async (place: string) => {
    await page.keyboard.press(":");
    await expect(page.getByTestId("jump-to-line")).toBeFocused();
    await page.keyboard.type(place);
    await page.keyboard.press("Enter");
    await page.getByTestId("log-view").locator("[tabindex]").focus();
  };
  await goTo("12,345");
  await expect(text(page, 12_345)).toHaveText(numberedLine(12_345));
  await goTo("25%");
  await expect(row(page, 5_000)).toBeInViewport();
  await goTo("-10d");
  await expect(row(page, 0)).toBeInViewport();
  await goTo("2099-01-01 00:00");
  await expect(page.getByTestId("problem")).toContainText("No line was captured at that time or later");
  await expect(row(page, 19_999)).toBeInViewport();
  await page.goto(`${demoUrl()}/streams/${id}#s70000`);
  await expect(page.getByTestId("problem")).toHaveText("Line s70000 does not exist yet. The stream has 20,000 lines.");
  await picture(page, "line-not-there");
});

test("nothing leaves the relay's origin, the policy is strict, and first paint costs less than 150 KiB", async ({ page }) => {
  const origins = new Set<string>();
  const bodies: Promise<[string, number]>[] = [];
  page.on("request", (request) => origins.add(new URL(request.url()).origin));
  page.on("response", (response) => {
    const kind = response.request().resourceType();
    if (["document", "script", "stylesheet", "font", "image"].includes(kind)) {
      bodies.push(response.body().then((body) => [new URL(response.url()).pathname, gzipSync(body, { level: 9 }).length]));
    }
  });
  const violations: string[] = [];
  page.on("console", (message) => message.type() === "error" && violations.push(message.text()));
  const pipe = new Pipe("policy", "policy");
  await pipe.write(`\u001b[38;2;255;120;40mtrue colour\u001b[0m <style>*{color:red}</style>\n`);
  await pipe.end();
  const answer = await page.goto(`${demoUrl()}/streams/${await streamId(pipe.selector, 1)}`);
  await expect(text(page, 0)).toHaveText("true colour <style>*{color:red}</style>");
  expect([...origins]).toEqual([demoUrl()]);
  expect(violations).toEqual([]);
  const policy = (await answer?.allHeaders())?.["content-security-policy"] ?? "";
  expect(policy).toContain("default-src 'none'");
  expect(policy).not.toMatch(/unsafe|\*|https?:/);
  expect(policy).toContain("frame-ancestors 'none'");
  // The colour is painted although the policy lets no style through.
  expect(await text(page, 0).locator(".span").first().evaluate((span) => getComputedStyle(span).color)).not.toBe(await text(page, 0).evaluate((row) => getComputedStyle(row).color));

  // The page's own files until the first line is there, as they are sent compressed.
  const sizes = await Promise.all(bodies);
  const total = sizes.reduce((sum, [, bytes]) => sum + bytes, 0);
  expect(total, `${sizes.map(([path, bytes]) => `${path}: ${bytes}`).join(", ")}`).toBeLessThan(150 * 1024);
});

test("groups and bars are readable in the dark, in the light and at 320 pixels", async ({ page }) => {
  const pipe = await followed(page, "gitlab");
  await pipe.write(recorded("markers/gitlab.log"));
  await expect(row(page, 6)).toBeVisible();
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width: 1280, height: 800 });
    await picture(page, `structure-${colorScheme}`);
    await page.setViewportSize({ width: 320, height: 640 });
    await picture(page, `structure-narrow-${colorScheme}`);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(320);
  }
  await pipe.end();
});
