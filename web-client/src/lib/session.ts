/** Who is logged in at the relay that served this page, and how to change that. */

export interface Session {
  /** Nothing can be seen without logging in. */
  readonly loginNeeded: boolean;
  readonly user: { readonly name: string; readonly role: string; readonly scope: string } | null;
  /** What protects this relay less than it could, a sentence each. */
  readonly warnings: readonly string[];
}

/** Whether the person may start and stop builds: an operator, an admin, or anybody where nobody is asked. */
export function mayControl({ user }: Session): boolean {
  return user === null || user.role === "operator" || user.role === "admin";
}

const PATH = "/api/session";

/** Throws with a sentence when the relay cannot be asked. */
export async function fetchSession(): Promise<Session> {
  return read(await request("GET"));
}

/** Logs in; throws with the relay's own words when it does not let one in. */
export async function logIn(token: string): Promise<Session> {
  return read(await request("POST", JSON.stringify({ token })));
}

export async function logOut(): Promise<Session> {
  return read(await request("DELETE"));
}

async function request(method: string, body?: string): Promise<Response> {
  const init: RequestInit = { method, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) Object.assign(init, { body, headers: { "content-type": "application/json" } });
  try {
    return await fetch(PATH, init);
  } catch {
    throw new Error("The relay cannot be reached.");
  }
}

async function read(response: Response): Promise<Session> {
  const answer: unknown = await response.json().catch(() => null);
  if (!response.ok) throw new Error(text(field(answer, "error")) || `The relay answers with status ${String(response.status)}.`);
  return parseSession(answer);
}

/** Everything that is missing or of another kind is taken for nothing. */
export function parseSession(answer: unknown): Session {
  const user = field(answer, "user");
  const warnings = field(answer, "warnings");
  return {
    loginNeeded: field(answer, "login_needed") === true,
    user:
      typeof user === "object" && user !== null
        ? { name: text(field(user, "name")), role: text(field(user, "role")), scope: text(field(user, "scope")) }
        : null,
    warnings: Array.isArray(warnings) ? warnings.map(text).filter((warning) => warning !== "") : [],
  };
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
