/** What the palette offers for some words: actions, hosts, streams, and a search of all text. */
import type { Agent, Stream } from "../../gen/millstream/v1/stream_pb";
import { fullName, hostName, matches, searchText, sourceName } from "../catalog/groups";
import { BINDINGS, type Action } from "../keys/table";

export type PaletteItem =
  | { readonly kind: "action"; readonly id: string; readonly action: Action; readonly label: string; readonly key: string }
  | { readonly kind: "host"; readonly id: string; readonly host: string; readonly streams: number }
  | { readonly kind: "stream"; readonly id: string; readonly stream: Stream }
  | { readonly kind: "text"; readonly id: string; readonly words: string };

/** Items of one kind that are offered at once. */
const MAX_STREAMS = 40;
const MAX_HOSTS = 8;
const MAX_ACTIONS = 8;

/** Words shorter than this are not looked for in text. */
const MIN_TEXT = 2;

export function paletteItems(
  query: string,
  known: Iterable<Stream>,
  agents: Iterable<Agent>,
  can: (action: Action) => boolean,
): PaletteItem[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const items: PaletteItem[] = [];
  const streams = [...known];
  const found = rank(streams.filter((stream) => matches(searchText(stream), words)), words);
  const text = query.trim();

  const byHost = new Map<string, number>();
  for (const stream of streams) byHost.set(hostName(stream), (byHost.get(hostName(stream)) ?? 0) + 1);
  for (const agent of agents) if (!byHost.has(agent.host)) byHost.set(agent.host, 0);
  const hosts = words.length === 0 ? [] : [...byHost].filter(([host]) => matches(host.toLowerCase(), words));
  const actions = BINDINGS.filter(
    ({ action, help, section }) => (words.length > 0 || section === "View" || section === "Everywhere") && action !== "palette" && action !== "let-go" && matches(help.toLowerCase(), words) && can(action),
  );

  for (const [host, count] of hosts.slice(0, MAX_HOSTS)) items.push({ kind: "host", id: `host-${host}`, host, streams: count });
  for (const stream of found.slice(0, MAX_STREAMS)) items.push({ kind: "stream", id: `stream-${stream.streamId}`, stream });
  for (const { action, help, keys } of actions.slice(0, words.length === 0 ? 4 : MAX_ACTIONS)) {
    items.push({ kind: "action", id: `action-${action}`, action, label: help, key: keys[0] ?? "" });
  }
  if (text.length >= MIN_TEXT) items.push({ kind: "text", id: "text", words: text });
  return items;
}

/** Streams whose source or host begins with the words first, then the newest. */
function rank(streams: Stream[], words: readonly string[]): Stream[] {
  const first = words[0] ?? "";
  const score = (stream: Stream): number => {
    if (first === "") return 0;
    if (sourceName(stream).toLowerCase().startsWith(first)) return 2;
    return hostName(stream).toLowerCase().startsWith(first) ? 1 : 0;
  };
  return streams.sort((a, b) => score(b) - score(a) || Number(b.lastLineUnixUs - a.lastLineUnixUs) || fullName(a).localeCompare(fullName(b), "en"));
}
