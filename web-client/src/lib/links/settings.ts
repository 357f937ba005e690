/** What the relay's configuration says of links. */

/** Templates of the relay that served this page; none when they cannot be read, because logs are shown all the same. */
export async function readLinkTemplates(): Promise<readonly string[]> {
  try {
    const answer = await fetch("/api/settings");
    const settings: unknown = answer.ok ? await answer.json() : null;
    return templatesOf(settings);
  } catch {
    return [];
  }
}

export function templatesOf(settings: unknown): readonly string[] {
  if (typeof settings !== "object" || settings === null || !("link_templates" in settings)) return [];
  const { link_templates: templates } = settings;
  return Array.isArray(templates) ? templates.filter((template) => typeof template === "string") : [];
}
