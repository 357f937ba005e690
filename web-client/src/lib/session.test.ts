import { afterEach, describe, expect, it, vi } from "vitest";
import { beginProviderLogin, fetchSession, logIn, mayControl, NO_SESSION, parseSession } from "./session";

afterEach(() => vi.unstubAllGlobals());

describe("the session", () => {
  it("is read as the relay writes it", () => {
    const answer = {
      login_needed: false,
      user: { name: "token ci (12345678)", role: "viewer", scope: "team=web", can_log_out: true },
      provider: "Example",
      problem: "no rule lets you in",
      warnings: ["TLS is given up"],
    };
    expect(parseSession(answer)).toEqual({
      loginNeeded: false,
      user: { name: "token ci (12345678)", role: "viewer", scope: "team=web", canLogOut: true },
      provider: "Example",
      problem: "no rule lets you in",
      warnings: ["TLS is given up"],
    });
  });

  it("is empty when the answer is anything else", () => {
    for (const answer of [null, 1, "x", [], {}, { warnings: 1, user: "x", login_needed: "yes", provider: 1, problem: {} }]) {
      expect(parseSession(answer)).toEqual(NO_SESSION);
    }
  });

  it("lets operators and admins act, and everybody where nobody is asked", () => {
    const may = (role: string | null) =>
      mayControl(parseSession({ user: role === null ? null : { name: "x", role, scope: "" } }));
    expect(["viewer", "agent", "", "operator", "admin", null].map(may)).toEqual([false, false, false, true, true, true]);
  });

  it("says in the relay's own words why nobody was let in", async () => {
    const refuse = () => new Response(JSON.stringify({ error: "the token is not valid" }), { status: 401 });
    vi.stubGlobal("fetch", vi.fn(() => Promise.resolve(refuse())));
    await expect(logIn("mst_x")).rejects.toThrow("the token is not valid");
  });

  it("says that the relay cannot be reached", async () => {
    vi.stubGlobal("fetch", vi.fn(() => Promise.reject(new TypeError("Failed to fetch"))));
    await expect(fetchSession()).rejects.toThrow("cannot be reached");
  });

  it("goes to the provider that the relay names, and nowhere else", async () => {
    const answers = ["https://login.example.com/auth?state=x", "javascript:alert(1)", "/elsewhere", 7];
    vi.stubGlobal("fetch", vi.fn(() => Promise.resolve(new Response(JSON.stringify({ url: answers.shift() })))));
    await expect(beginProviderLogin("/")).resolves.toBe("https://login.example.com/auth?state=x");
    while (answers.length > 0) await expect(beginProviderLogin("/")).rejects.toThrow("does not say where");
  });
});
