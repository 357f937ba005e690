/** The rows of the overview: every stream, every source with its last runs, or every host; found and sorted. */
import { AgentState, type Agent, type Stream } from "../../gen/millstream/v1/stream_pb";
import { formatAgo, formatCount } from "../text/format";
import { fullName, hostName, instanceName, matches, searchText, sourceName } from "./groups";
import type { Rates } from "./rates";
import { describeStanding, quietMs, STANDINGS, standingOf, type Standing } from "./standing";

export type Grouping = "streams" | "sources" | "hosts";
export type SortKey = "state" | "name" | "rate" | "lines" | "last";

export interface Past {
  readonly streamId: number;
  readonly standing: Standing;
  readonly words: string;
}

export interface OverviewRow {
  readonly key: string;
  readonly standing: Standing;
  readonly words: string;
  /** Muted, before the name; empty where the name says it. */
  readonly host: string;
  readonly name: string;
  readonly detail: string;
  readonly title: string;
  /** What a click opens; empty: nothing to open. */
  readonly streamIds: readonly number[];
  /** Runs of a source, the newest last; empty where one row is one stream. */
  readonly past: readonly Past[];
  /** Lines a second of late, the newest last; empty when there were none. */
  readonly rates: readonly number[];
  readonly rate: number;
  readonly lines: number;
  readonly startUs: number;
  readonly lastUs: number;
  /** Whose last line is shown; null: none. */
  readonly newest: Stream | null;
}

export interface Known {
  readonly streams: Iterable<Stream>;
  readonly agents: Iterable<Agent>;
  readonly rates: Rates;
}

export interface Wish {
  readonly grouping: Grouping;
  readonly words: string;
  /** Only rows that stand so; null: all. */
  readonly standing: Standing | null;
  readonly sort: SortKey;
  readonly descending: boolean;
}

export interface OverviewRows {
  readonly rows: readonly OverviewRow[];
  /** Rows that the words find, by how they stand. */
  readonly counts: ReadonlyMap<Standing, number>;
  readonly total: number;
}

/** Runs of a source that are shown as marks. */
const PAST = 12;

/** Streams of a row that are opened together. */
const OPENED = 8;

export function overviewOf(known: Known, wish: Wish, nowMs: number): OverviewRows {
  const words = wish.words.toLowerCase().split(/\s+/).filter(Boolean);
  const streams = [...known.streams].filter((stream) => matches(searchText(stream), words));
  const rows = rowsOf(streams, known, wish.grouping, words, nowMs);
  const counts = new Map<Standing, number>();
  for (const { standing } of rows) counts.set(standing, (counts.get(standing) ?? 0) + 1);
  const wanted = wish.standing === null ? rows : rows.filter(({ standing }) => standing === wish.standing);
  return { rows: wanted.sort(orderBy(wish.sort, wish.descending)), counts, total: rows.length };
}

function rowsOf(streams: Stream[], known: Known, grouping: Grouping, words: readonly string[], nowMs: number): OverviewRow[] {
  switch (grouping) {
    case "streams":
      return streams.map((stream) => streamRow(stream, known.rates, nowMs));
    case "sources":
      return [...groupBy(streams, (stream) => `${hostName(stream)}\n${sourceName(stream)}`)].map(([key, own]) =>
        sourceRow(key, own, known.rates, nowMs),
      );
    case "hosts":
      return hostRows(streams, known, words, nowMs);
  }
}

function streamRow(stream: Stream, rates: Rates, nowMs: number): OverviewRow {
  const id = Number(stream.streamId);
  const quiet = quietMs(stream, rates.grewMs(id), nowMs);
  return {
    key: `${id}`,
    standing: standingOf(stream, quiet),
    words: describeStanding(stream, quiet, nowMs),
    host: hostName(stream),
    name: sourceName(stream),
    detail: stream.run ? `${instanceName(stream)}  ${stream.run.argv.join(" ")}` : instanceName(stream),
    title: fullName(stream),
    streamIds: [id],
    past: [],
    rates: rates.of(id, nowMs),
    rate: rates.now(id, nowMs),
    lines: Number(stream.nextSequence),
    startUs: Number(stream.run?.startUnixUs ?? stream.createdUnixUs),
    lastUs: Number(stream.lastLineUnixUs),
    newest: stream,
  };
}

function sourceRow(key: string, own: Stream[], rates: Rates, nowMs: number): OverviewRow {
  const rows = own.sort((a, b) => Number(a.streamId - b.streamId)).map((stream) => streamRow(stream, rates, nowMs));
  const newest = rows.at(-1);
  if (newest === undefined) throw new RangeError("a group without a stream");
  const runs = own.filter((stream) => stream.run !== undefined).length;
  return {
    ...newest,
    ...joined(rows),
    key,
    detail: runs > 1 ? `${formatCount(runs)} runs` : rows.length > 1 ? `${formatCount(rows.length)} streams` : newest.detail,
    title: `${newest.host} / ${newest.name}`,
    streamIds: runs > 0 ? newest.streamIds : rows.slice(-OPENED).flatMap(({ streamIds }) => streamIds),
    past:
      runs > 1
        ? rows.slice(-PAST).map(({ streamIds, standing, words }) => ({ streamId: streamIds[0] ?? 0, standing, words }))
        : [],
  };
}

function hostRows(streams: Stream[], known: Known, words: readonly string[], nowMs: number): OverviewRow[] {
  const byHost = groupBy(streams, hostName);
  const agents = groupBy([...known.agents], (agent) => agent.host);
  const names = new Set([...byHost.keys(), ...[...agents.keys()].filter((host) => matches(host.toLowerCase(), words))]);
  return [...names].map((host) => {
    const own = agents.get(host) ?? [];
    const connected = own.filter((agent) => agent.state === AgentState.CONNECTED);
    const rows = (byHost.get(host) ?? []).sort((a, b) => Number(a.streamId - b.streamId)).map((stream) => streamRow(stream, known.rates, nowMs));
    const open = rows.filter(({ standing }) => standing === "running" || standing === "stalled" || standing === "live");
    const stalled = rows.filter(({ standing }) => standing === "stalled").length;
    const newest = rows.reduce<OverviewRow | null>((best, row) => (best === null || row.lastUs > best.lastUs ? row : best), null);
    const goneUs = Math.max(0, ...own.map((agent) => Number(agent.disconnectedUnixUs)));
    return {
      key: host,
      standing: connected.length === 0 ? "away" : stalled > 0 ? "stalled" : "live",
      words:
        connected.length === 0
          ? `agent away${goneUs > 0 ? ` for ${formatAgo(goneUs, nowMs)}` : ""}`
          : stalled > 0
            ? `${formatCount(stalled)} stalled`
            : "agent connected",
      host: "",
      name: host,
      detail: [
        `${formatCount(open.length)} of ${formatCount(rows.length)} ${rows.length === 1 ? "stream" : "streams"} open`,
        ...new Set(own.map((agent) => `agent ${agent.version}`)),
      ].join(", "),
      title: host,
      streamIds: (open.length > 0 ? open : rows).slice(-OPENED).flatMap(({ streamIds }) => streamIds),
      past: [],
      ...joined(rows),
      newest: newest?.newest ?? null,
    };
  });
}

/** What several streams come to together. */
function joined(rows: readonly OverviewRow[]): Pick<OverviewRow, "rates" | "rate" | "lines" | "startUs" | "lastUs"> {
  const length = Math.max(0, ...rows.map(({ rates }) => rates.length));
  const rates = Array.from({ length }, (_, at) => rows.reduce((sum, row) => sum + (row.rates.at(at - length) ?? 0), 0));
  return {
    rates,
    rate: rows.reduce((sum, row) => sum + row.rate, 0),
    lines: rows.reduce((sum, row) => sum + row.lines, 0),
    startUs: Math.max(0, ...rows.map((row) => row.startUs)),
    lastUs: Math.max(0, ...rows.map((row) => row.lastUs)),
  };
}

const byName = new Intl.Collator("en", { numeric: true });

function orderBy(sort: SortKey, descending: boolean): (a: OverviewRow, b: OverviewRow) => number {
  const rank = (row: OverviewRow): number => STANDINGS.indexOf(row.standing);
  const keys: Record<SortKey, (a: OverviewRow, b: OverviewRow) => number> = {
    state: (a, b) => rank(a) - rank(b),
    name: (a, b) => byName.compare(a.host, b.host) || byName.compare(a.name, b.name) || byName.compare(a.detail, b.detail),
    rate: (a, b) => a.rate - b.rate,
    lines: (a, b) => a.lines - b.lines,
    last: (a, b) => a.lastUs - b.lastUs,
  };
  // What is equal keeps an order that does not change by itself, so that rows do not dance.
  return (a, b) => (descending ? -1 : 1) * keys[sort](a, b) || b.startUs - a.startUs || byName.compare(a.key, b.key);
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group) group.push(item);
    else groups.set(keyOf(item), [item]);
  }
  return groups;
}
