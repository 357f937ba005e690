// Logging in and out, pages of others, and text that wants to be more than text, in a real browser over TLS.
import { createServer, type Server } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";

import { expect, test, type Page } from "@playwright/test";

import { TestRelay } from "./support/relay.ts";

// The relay's certificate is of an authority of its own, which this browser does not know.
test.use({ ignoreHTTPSErrors: true });

let relay: TestRelay;
test.beforeAll(async () => {
  relay = await TestRelay.secure();
});
test.afterAll(() => relay.stop());

let count = 0;
function viewer(...args: string[]): { name: string; token: string } {
  const name = `viewer-${(count += 1)}`;
  return { name, token: relay.token(name, "--role", "viewer", ...args) };
}

/** Logs in; a new token is known to the relay within a second. */
async function logIn(page: Page, token: string): Promise<void> {
  await page.goto(relay.url);
  await expect(async () => {
    await page.getByTestId("login-token").fill(token);
    await page.getByRole("button", { name: "Log in" }).click();
    await expect(page.getByTestId("session-user")).toBeVisible({ timeout: 1_000 });
  }).toPass();
}

test("a token lets one in, stays out of the browser, and a logout ends it", async ({ page, context }) => {
  const { name, token } = viewer();
  await page.goto(relay.url);
  await page.getByTestId("login-token").fill("mst_wrong");
  await page.getByRole("button", { name: "Log in" }).click();
  await expect(page.getByTestId("login-problem")).toContainText("not valid");

  await logIn(page, token);
  await expect(page.getByTestId("session-user")).toContainText(name);
  await expect(page.getByTestId("catalog-state")).toHaveAttribute("data-state", "complete");
  const cookies = await context.cookies();
  expect(cookies).toHaveLength(1);
  expect(cookies[0]).toMatchObject({ name: "__Host-millstream", httpOnly: true, secure: true, sameSite: "Strict", path: "/" });
  const kept = await page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]));
  expect(kept).not.toContain(token);
  expect(kept).not.toContain(cookies[0]!.value);

  await page.reload();
  await expect(page.getByTestId("session-user")).toContainText(name);
  await page.getByTestId("log-out").click();
  await expect(page.getByTestId("login-token")).toBeVisible();
  await page.reload();
  await expect(page.getByTestId("login-token")).toBeVisible();
  // The cookie of before is worth nothing.
  await context.addCookies(cookies);
  await page.reload();
  await expect(page.getByTestId("login-token")).toBeVisible();
});

test("a session ends with its token while the page is open", async ({ page }) => {
  const { name, token } = viewer();
  await logIn(page, token);
  relay.revoke(name);
  await expect(page.getByTestId("login-token")).toBeVisible();
});

test("a scope shows its own streams only", async ({ page }) => {
  relay.send("build-web", "web-build", "a line of web\n", "team=web");
  relay.send("build-core", "core-build", "a line of core\n", "team=core");
  await logIn(page, viewer("--scope", "team=web").token);
  await expect(page.getByTestId("stream-list")).toContainText("web-build");
  await expect(page.getByTestId("stream-list")).not.toContainText("core-build");
});

test("who may only look gets no button that acts", async ({ page, context }) => {
  relay.agent(
    "build-9",
    '[sources.release]\nplugin = "exec"\ncommand = ["sleep", "1000"]\nrun_at_start = false\nstop_with_agent = true\n' +
      '[control.release]\nallow = ["start", "stop"]\n',
  );
  await logIn(page, relay.token("operator", "--role", "operator"));
  const idle = page.locator("[data-testid=idle-source][data-source=release]");
  await idle.getByTestId("source-start").click();
  await expect(idle).toHaveCount(0);
  const run = page.locator('[data-testid=host][data-host="build-9"] [data-testid=stream-item]').getByRole("link").first();
  await run.click();
  await expect(page.getByTestId("run-stop")).toBeVisible();
  const address = page.url();

  await context.clearCookies();
  await logIn(page, viewer().token);
  await page.goto(address);
  await expect(page.getByTestId("log-view")).toContainText("run-started");
  await expect(page.getByTestId("run-stop")).toHaveCount(0);
});

test("a page of somebody else gets nothing through the browser of one who is logged in", async ({ page, context }) => {
  const evil: Server = createServer((_, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>elsewhere</title>");
  });
  evil.listen(0, "localhost");
  await once(evil, "listening");
  try {
    await logIn(page, viewer().token);
    const other = await context.newPage();
    await other.goto(`http://localhost:${(evil.address() as AddressInfo).port}/`);
    const answers = await other.evaluate(async (url) => {
      const outcome = async (path: string, init: RequestInit): Promise<string> => {
        try {
          const response = await fetch(url + path, { credentials: "include", ...init });
          return `${response.type} ${await response.text()}`;
        } catch {
          return "refused";
        }
      };
      const grpc = { method: "POST", body: new Uint8Array(5), headers: { "content-type": "application/grpc-web+proto" } };
      const list = "/millstream.v1.LogService/ListStreams";
      return {
        session: await outcome("/api/session", {}),
        raw: await outcome("/api/streams/1/raw", {}),
        list: await outcome(list, grpc),
        simple: await outcome(list, { method: "POST", mode: "no-cors", body: "x" }),
        logout: await outcome("/api/session", { method: "DELETE" }),
        // A form's content type needs no leave from the relay, so it arrives there; it must change nothing.
        login: await outcome("/api/session", { method: "POST", mode: "no-cors", body: JSON.stringify({ token: "x" }) }),
        metrics: await outcome("/metrics", { mode: "no-cors" }),
        framed: await new Promise<string>((resolve) => {
          const frame = document.createElement("iframe");
          frame.src = url;
          frame.onload = () => resolve("loaded something");
          document.body.append(frame);
        }),
      };
    }, relay.url);
    expect(answers.session).toBe("refused");
    expect(answers.raw).toBe("refused");
    expect(answers.list).toBe("refused");
    expect(answers.logout).toBe("refused");
    // What may be sent without leave gives nothing back.
    for (const answer of [answers.simple, answers.login, answers.metrics]) expect(answer).toBe("opaque ");
    // The browser shows its own error page in the frame.
    const frame = other.frames().find((each) => each !== other.mainFrame());
    expect(frame!.url()).not.toContain(relay.url);
    expect(await frame!.locator("#app").count()).toBe(0);
    // The person is still logged in.
    await page.reload();
    await expect(page.getByTestId("session-user")).toBeVisible();
  } finally {
    evil.close();
  }
});

test("what a host says is text, wherever it is shown", async ({ page }) => {
  const trap = (place: string): string => `<img src=x onerror="window.ran='${place}'"><script>window.ran='${place}'</script>`;
  const alarms: string[] = [];
  page.on("dialog", (dialog) => {
    alarms.push(dialog.message());
    void dialog.dismiss();
  });
  page.on("console", (message) => {
    if (/Content Security Policy/i.test(message.text())) alarms.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(relay.url) && !request.url().startsWith("data:")) alarms.push(request.url());
  });
  const lines = [
    trap("line"),
    `https://example.com/"onmouseover="window.ran='link'"`,
    `javascript:window.ran='url'`,
    `::group::${trap("group")}`,
    "inside",
    "::endgroup::",
    `\u001b]8;;javascript:window.ran='osc8'\u0007link\u001b]8;;\u0007`,
    `\u001b]0;title\u0007after`,
    "the last line",
  ];
  relay.send(trap("host"), trap("source"), lines.join("\n") + "\n", `note=${trap("label")}`);
  await logIn(page, viewer("--scope", "note").token);
  const list = page.getByTestId("stream-list");
  await expect(list).toContainText("<img src=x onerror=");
  await list.getByText("<img src=x", { exact: false }).last().click();
  await expect(page.getByText("the last line")).toBeVisible();
  await expect(page.getByText("<script>window.ran='line'</script>", { exact: false }).first()).toBeVisible();
  expect(await page.locator("img[src=x], [onerror], [onmouseover], a[href^='javascript:']").count()).toBe(0);
  expect(await page.evaluate(() => (window as { ran?: string }).ran)).toBeUndefined();
  expect(alarms).toEqual([]);
});

test("what is given up is shown to everybody who looks", async ({ page }) => {
  const open = await TestRelay.with(["--listen=0.0.0.0:0", "--insecure-no-tls", "--insecure-no-auth"]);
  try {
    await page.goto(`http://127.0.0.1:${new URL(open.url).port}/`);
    const banner = page.getByTestId("insecure-banner");
    await expect(banner).toContainText("--insecure-no-auth");
    await expect(banner).toContainText("--insecure-no-tls");
    await page.screenshot({ path: test.info().outputPath("banner.png") });
  } finally {
    await open.stop();
  }
});
