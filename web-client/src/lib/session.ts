/** Who is logged in at the relay that served this page, and how to change that. */

export interface Session {
  /** Nothing can be seen without logging in. */
  readonly loginNeeded: boolean;
  readonly user: {
    readonly name: string;
    readonly role: string;
    readonly scope: string;
    /** There is a session at the relay that can be ended; a proxy in front logs out by itself. */
    readonly canLogOut: boolean;
  } | null;
  /** What people call the provider by which they can log in; empty: they need a token. */
  readonly provider: string;
  /** Why the last login failed, or why nobody is let in without one; a sentence, or empty. */
  readonly problem: string;
  /** What protects this relay less than it could, a sentence each. */
  readonly warnings: readonly string[];
}

/** Whether the person may start and stop builds: an operator, an admin, or anybody where nobody is asked. */
export function mayControl({ user }: Session): boolean {
  return user === null || user.role === "operator" || user.role === "admin";
}

/** What is known before the relay has answered: nothing. */
export const NO_SESSION: Session = { loginNeeded: false, user: null, provider: "", problem: "", warnings: [] };

const PATH = "/api/session";
const PROVIDER_PATH = "/api/login/oidc";

/** Throws with a sentence when the relay cannot be asked. */
export async function fetchSession(): Promise<Session> {
  return parseSession(await ask("GET", PATH));
}

/** Logs in; throws with the relay's own words when it does not let one in. */
export async function logIn(token: string): Promise<Session> {
  return parseSession(await ask("POST", PATH, { token }));
}

/** The address of the provider's login page, which leads back to `to`; throws with the relay's own words. */
export async function beginProviderLogin(to: string): Promise<string> {
  const url = text(field(await ask("POST", PROVIDER_PATH, { to }), "url"));
  if (!/^https?:\/\//.test(url)) throw new Error("The relay does not say where to log in.");
  return url;
}

export async function logOut(): Promise<Session> {
  return parseSession(await ask("DELETE", PATH));
}

async function ask(method: string, path: string, body?: unknown): Promise<unknown> {
  const init: RequestInit = { method, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) Object.assign(init, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new Error("The relay cannot be reached.");
  }
  const answer: unknown = await response.json().catch(() => null);
  if (!response.ok) throw new Error(text(field(answer, "error")) || `The relay answers with status ${String(response.status)}.`);
  return answer;
}

/** Everything that is missing or of another kind is taken for nothing. */
export function parseSession(answer: unknown): Session {
  const user = field(answer, "user");
  const warnings = field(answer, "warnings");
  return {
    loginNeeded: field(answer, "login_needed") === true,
    user:
      typeof user === "object" && user !== null
        ? {
            name: text(field(user, "name")),
            role: text(field(user, "role")),
            scope: text(field(user, "scope")),
            canLogOut: field(user, "can_log_out") === true,
          }
        : null,
    provider: text(field(answer, "provider")),
    problem: text(field(answer, "problem")),
    warnings: Array.isArray(warnings) ? warnings.map(text).filter((warning) => warning !== "") : [],
  };
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
