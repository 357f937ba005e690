// Logging in by a real login provider, in a real browser over TLS.
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { expect, test, type Page } from "@playwright/test";

import { expectAccessible } from "./support/axe.ts";
import { LoginProvider } from "./support/provider.ts";
import { TestRelay } from "./support/relay.ts";

// The relay's certificate is of an authority of its own, which this browser does not know.
test.use({ ignoreHTTPSErrors: true });

const CLIENT = "millstream";
const SECRET = "a secret of this test";

/** A provider that knows some people, and a relay that knows the provider. */
async function place(): Promise<{ provider: LoginProvider; relay: TestRelay }> {
  const provider = await LoginProvider.start({
    ann: { email: "ann@example.com", groups: ["web"] },
    olga: { email: "olga@example.com", groups: ["ops"] },
    eve: { email: "eve@example.com", groups: ["sales"] },
  });
  const relay = await TestRelay.secure((directory) => {
    const secretFile = join(directory, "oidc-secret");
    writeFileSync(secretFile, SECRET, { mode: 0o600 });
    return `
[oidc]
name = "Example"
issuer = "${provider.issuer}"
client_id = "${CLIENT}"
client_secret_file = "${secretFile}"
scopes = ["email", "groups"]

[[people]]
claims = { groups = "ops" }
role = "operator"

[[people]]
claims = { groups = "web", email = "*@example.com" }
role = "viewer"
scope = "team=web"
`;
  });
  return { provider, relay };
}

let provider: LoginProvider;
let relay: TestRelay;
test.beforeAll(async () => {
  ({ provider, relay } = await place());
  provider.register(CLIENT, SECRET, relay.url);
});
test.afterAll(async () => {
  await relay.stop();
  await provider.stop();
});

test.beforeEach(async ({ context, page }) => {
  // The provider's own page would like a font from elsewhere.
  await context.route(/fonts\.googleapis\.com/, (route) => route.abort());
  alarms.length = 0;
  page.on("console", (message) => {
    if (/Content Security Policy/i.test(message.text()) && page.url().startsWith(relay.url)) alarms.push(message.text());
  });
});
test.afterEach(() => expect(alarms).toEqual([]));
const alarms: string[] = [];

const button = (page: Page) => page.getByTestId("login-provider");

/** From the login page to the application. */
async function logIn(page: Page, name: string): Promise<void> {
  await button(page).click();
  await LoginProvider.logIn(page, name);
}

test("a provider that does not answer yet is told of, and used as soon as it answers", async ({ page }) => {
  const { provider, relay } = await place();
  try {
    await page.goto(relay.url);
    await expect(button(page)).toHaveText("Log in with Example");
    await expect(button(page)).toBeFocused();
    await page.screenshot({ path: test.info().outputPath("login.png") });
    await expectAccessible(page, "the login page");
    await page.keyboard.press("Enter");
    await expect(page.getByTestId("login-problem")).toContainText("Example does not answer");
    await page.screenshot({ path: test.info().outputPath("login-problem.png") });
    await expectAccessible(page, "the login page with a problem");
    provider.register(CLIENT, SECRET, relay.url);
    await button(page).click();
    await expect(page.getByPlaceholder("Enter any login")).toBeVisible();
    expect(page.url()).toContain(provider.issuer);
  } finally {
    await relay.stop();
    await provider.stop();
  }
});

test("a person logs in at the provider, sees their streams, and logs out", async ({ page, context }) => {
  relay.send("build-web", "web-build", "a line of web\n", "team=web");
  relay.send("build-core", "core-build", "a line of core\n", "team=core");
  await page.goto(`${relay.url}/?from=a-link#there`);
  await logIn(page, "ann");
  await expect(page.getByTestId("session-user")).toContainText("ann@example.com");
  await expect(page.getByTestId("session-user")).toContainText("viewer: team=web");
  await expect(page.getByTestId("stream-list")).toContainText("web-build");
  await expect(page.getByTestId("stream-list")).not.toContainText("core-build");
  expect(new URL(page.url()).search, "back to where the person was").toBe("?from=a-link");
  await page.screenshot({ path: test.info().outputPath("logged-in.png") });
  const cookies = (await context.cookies()).filter(({ domain }) => domain === "127.0.0.1");
  expect(cookies).toHaveLength(1);
  expect(cookies[0]).toMatchObject({ name: "__Host-millstream", httpOnly: true, secure: true, sameSite: "Strict", path: "/" });
  const kept = await page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]));
  expect(kept).not.toContain(cookies[0]!.value);
  await page.reload();
  await expect(page.getByTestId("session-user")).toContainText("ann@example.com");

  await page.getByTestId("log-out").click();
  await expect(button(page)).toBeVisible();
  await context.addCookies(cookies);
  await page.reload();
  await expect(button(page)).toBeVisible();
});

test("another person gets what another rule says", async ({ page }) => {
  await page.goto(relay.url);
  await logIn(page, "olga");
  await expect(page.getByTestId("session-user")).toContainText("olga@example.com");
  await expect(page.getByTestId("session-user")).toContainText("operator");
});

test("whom no rule is about is told so on the login page, which still takes tokens", async ({ page }) => {
  await page.goto(relay.url);
  await logIn(page, "eve");
  await expect(page.getByTestId("login-problem")).toContainText("eve@example.com");
  await expect(page.getByTestId("login-problem")).toContainText("no rule");
  await page.screenshot({ path: test.info().outputPath("no-rule.png") });
  const token = relay.token("eve-token", "--role", "viewer");
  await expect(async () => {
    await page.getByTestId("login-token").fill(token);
    await page.getByRole("button", { name: "Log in", exact: true }).click();
    await expect(page.getByTestId("session-user")).toContainText("eve-token", { timeout: 1_000 });
  }).toPass();
});

test("an answer that is used again, or in another browser, lets nobody in", async ({ page, browser }) => {
  let answer = "";
  page.on("request", (request) => {
    if (request.url().includes("/api/login/oidc/callback")) answer = request.url();
  });
  await page.goto(relay.url);
  await logIn(page, "ann");
  await expect(page.getByTestId("session-user")).toBeVisible();
  expect(answer).toContain("code=");
  await page.getByTestId("log-out").click();
  await expect(button(page)).toBeVisible();
  await page.goto(answer);
  await expect(page.getByTestId("login-problem")).toContainText("begin again");

  const other = await browser.newContext({ ignoreHTTPSErrors: true });
  try {
    const theirs = await other.newPage();
    await theirs.goto(answer);
    await expect(theirs.getByTestId("login-problem")).toContainText("begin again");
    expect((await other.cookies()).map(({ name }) => name)).not.toContain("__Host-millstream");
  } finally {
    await other.close();
  }
});

test("a session is over when the provider's word is, while the page is open", async ({ page }) => {
  provider.tokenSeconds = 20;
  try {
    await page.goto(relay.url);
    await logIn(page, "ann");
    await expect(page.getByTestId("session-user")).toBeVisible();
    await expect(button(page)).toBeVisible({ timeout: 60_000 });
  } finally {
    provider.tokenSeconds = 3600;
  }
});
