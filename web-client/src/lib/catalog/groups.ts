/** The side bar's order: hosts by name, below each its sources, below each its streams, newest first. */
import { AgentState, type Agent, type Stream } from "../../gen/millstream/v1/stream_pb";

export interface SourceGroup {
  readonly key: string;
  readonly source: string;
  /** Newest first. */
  readonly streams: readonly Stream[];
}

export interface HostGroup {
  readonly host: string;
  readonly isConnected: boolean;
  readonly sources: readonly SourceGroup[];
  readonly streamCount: number;
}

/** Streams that match the filter, grouped. An agent without streams still shows its host. */
export function groupStreams(streams: Iterable<Stream>, agents: Iterable<Agent>, filter: string): HostGroup[] {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const hosts = new Map<string, { isConnected: boolean; sources: Map<string, Stream[]> }>();
  const hostOf = (name: string): { isConnected: boolean; sources: Map<string, Stream[]> } => {
    let host = hosts.get(name);
    if (host === undefined) {
      host = { isConnected: false, sources: new Map() };
      hosts.set(name, host);
    }
    return host;
  };

  for (const stream of streams) {
    if (!matches(searchText(stream), words)) continue;
    const host = hostOf(hostName(stream));
    // What the relay writes itself has no agent that could be away.
    host.isConnected ||= stream.agentId.startsWith("@");
    const { sources } = host;
    const source = sourceName(stream);
    const group = sources.get(source);
    if (group) group.push(stream);
    else sources.set(source, [stream]);
  }
  for (const agent of agents) {
    const isConnected = agent.state === AgentState.CONNECTED;
    if (!hosts.has(agent.host) && (words.length === 0 ? !isConnected : !matches(agent.host.toLowerCase(), words))) continue;
    const host = hostOf(agent.host);
    host.isConnected ||= isConnected;
  }

  return [...hosts]
    .sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))
    .map(([host, { isConnected, sources }]) => ({
      host,
      isConnected,
      streamCount: [...sources.values()].reduce((count, group) => count + group.length, 0),
      sources: [...sources]
        .sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))
        .map(([source, group]) => ({
          key: `${host}/${source}`,
          source,
          streams: group.sort((a, b) => Number(b.streamId - a.streamId)),
        })),
    }));
}

export function hostName(stream: Stream): string {
  return stream.labels["host"] ?? stream.agentId;
}

export function sourceName(stream: Stream): string {
  return stream.labels["source"] ?? "unnamed";
}

/** What tells a stream from the others of its source: a path, or when its run began. */
export function instanceName(stream: Stream): string {
  const path = stream.labels["path"];
  // The instance of what is piped in is made up: when it began tells a person more.
  if (stream.run !== undefined || (path === undefined && /^[0-9a-z]{16,32}$/.test(stream.instance))) {
    const start = new Date(Number(stream.run?.startUnixUs ?? stream.createdUnixUs) / 1_000);
    const time = start.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const isToday = start.toDateString() === new Date().toDateString();
    return isToday ? time : `${start.toLocaleDateString("en-CA").slice(5)} ${time}`;
  }
  const name = path ?? stream.instance;
  return name.split("/").at(-1) || name;
}

/** A name for each of the streams: as little of host, source and instance as tells them apart. */
export function shortNames(streams: readonly Stream[]): string[] {
  const oneHost = new Set(streams.map(hostName)).size === 1;
  const naming: ((stream: Stream) => string[])[] = [
    (stream) => (oneHost ? [sourceName(stream)] : [hostName(stream)]),
    (stream) => [...(oneHost ? [] : [hostName(stream)]), sourceName(stream)],
    (stream) => [...(oneHost ? [] : [hostName(stream)]), sourceName(stream), instanceName(stream)],
  ];
  const candidates = naming.map((parts) => streams.map((stream) => parts(stream).join(" ")));
  return candidates.find((names) => new Set(names).size === names.length) ?? candidates.at(-1) ?? [];
}

/** One line that names a stream in full. */
export function fullName(stream: Stream): string {
  const what = stream.run ? stream.run.argv.join(" ") : (stream.labels["path"] ?? instanceName(stream));
  return `${hostName(stream)} / ${sourceName(stream)} — ${what}`;
}

/** What words are looked for in. */
export function searchText(stream: Stream): string {
  const labels = Object.values(stream.labels).join(" ");
  return `${labels} ${stream.instance} ${stream.run?.argv.join(" ") ?? ""}`.toLowerCase();
}

export function matches(text: string, words: readonly string[]): boolean {
  return words.every((word) => text.includes(word));
}
