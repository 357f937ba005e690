/**
 * A relay that makes its logs up, for work on the web client: `MILLSTREAM_FAKE=1 npx vite` or, with
 * the built pages and the relay's content policy, `MILLSTREAM_FAKE=1 npx vite preview`.
 * FAKE_RATE sets the lines a second of the stream "fast"; FAKE_EMPTY=1 leaves every list empty.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import type { Connect, Plugin } from "vite";
import { BlockSchema, Codec, LineFlag, type Block } from "../src/gen/millstream/v1/block_pb";
import { LogService, TailResponseSchema, WatchResponseSchema, type SearchRequest, type SearchResponseSchema, type TailRequest, type WatchRequest } from "../src/gen/millstream/v1/log_pb";
import { AgentState, EndReason, StreamState, type StreamSchema } from "../src/gen/millstream/v1/stream_pb";
import { fakeStreams, type FakeStream } from "./fake-streams";

const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export function fakeRelay(): Plugin {
  return {
    name: "fake-relay",
    configureServer(server) {
      server.middlewares.use(answer);
    },
    configurePreviewServer(server) {
      server.middlewares.use((_request, response, next) => {
        response.setHeader("content-security-policy", POLICY);
        next();
      });
      server.middlewares.use(answer);
    },
  };
}

const adapter = connectNodeAdapter({ routes });

const answer: Connect.NextHandleFunction = (request, response, next) => {
  if (request.url?.startsWith(`/${LogService.typeName}/`)) adapter(request, response);
  else next();
};

const streams = process.env["FAKE_EMPTY"] === "1" ? [] : fakeStreams();
const byId = new Map(streams.map((stream) => [stream.streamId, stream]));

function routes(router: ConnectRouter): void {
  router.service(LogService, {
    watch,
    tail,
    search,
    read(request) {
      const stream = find(Number(request.streamId));
      const head = stream.count(Date.now());
      let from = 0;
      if (request.from.case === "fromSequence") from = Number(request.from.value);
      if (request.from.case === "fromUnixUs") from = sequenceAt(stream, Number(request.from.value), head);
      const first = stream.first ?? 0;
      const gap = from < first ? { streamId: request.streamId, firstSequence: BigInt(from), nextSequence: BigInt(first), message: "removed by retention" } : undefined;
      from = Math.max(from, first);
      const to = Math.min(head, Number(request.toSequence) || head, from + Math.min(5_000, request.maxLines || 5_000));
      return { blocks: to > from ? [block(stream, from, to)] : [], nextSequence: BigInt(Math.max(from, to)), stream: describe(stream), gap };
    },
  });
}

async function* watch(_request: WatchRequest, context: { signal: AbortSignal }): AsyncGenerator<MessageInitShape<typeof WatchResponseSchema>> {
  for (const stream of streams) yield { message: { case: "stream", value: describe(stream) } };
  for (const host of new Set(streams.map((stream) => stream.host))) {
    const state = host === "build-3" ? AgentState.AWAY : AgentState.CONNECTED;
    yield { message: { case: "agent", value: { agentId: host, host, state, version: "0.1.0" } } };
  }
  yield { message: { case: "snapshotDone", value: {} } };
  for (let tick = 1; !context.signal.aborted; tick += 1) {
    await sleep(1_000, context.signal);
    for (const stream of streams) {
      if (stream.endedMs === undefined) yield { message: { case: "stream", value: describe(stream) } };
    }
    if (tick % 10 === 0) yield { message: { case: "heartbeat", value: { serverUnixUs: BigInt(Date.now() * 1_000) } } };
  }
}

async function* tail(request: TailRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<MessageInitShape<typeof TailResponseSchema>> {
  const followed = request.streamIds.map((id) => find(Number(id)));
  const next = new Map<number, number>();
  for (const stream of followed) {
    yield { message: { case: "stream", value: describe(stream) } };
    const position = request.positions.find((each) => Number(each.streamId) === stream.streamId);
    const last = request.start.case === "lastLines" ? Number(request.start.value) : 0;
    const begin = position ? Number(position.nextSequence) : Math.max(stream.first ?? 0, stream.count(Date.now()) - last);
    next.set(stream.streamId, begin);
  }
  const ended = new Set<number>();
  let caughtUp = false;
  let beatMs = Date.now();
  while (!signal.aborted) {
    for (const stream of followed) {
      const head = stream.count(Date.now());
      for (let from = next.get(stream.streamId) ?? 0; from < head; from = next.get(stream.streamId) ?? head) {
        const to = Math.min(head, from + 5_000);
        yield { message: { case: "block", value: { streamId: BigInt(stream.streamId), block: block(stream, from, to) } } };
        next.set(stream.streamId, to);
      }
      if (stream.endedMs !== undefined && !ended.has(stream.streamId)) {
        ended.add(stream.streamId);
        const end = describe(stream).end;
        yield { message: { case: "streamEnded", value: { streamId: BigInt(stream.streamId), nextSequence: BigInt(head), end } } };
      }
    }
    if (!caughtUp) yield { message: { case: "caughtUp", value: { cursor: new Uint8Array([1]) } } };
    caughtUp = true;
    await sleep(10, signal);
    if (Date.now() - beatMs >= 10_000) {
      beatMs = Date.now();
      yield { message: { case: "heartbeat", value: { cursor: new Uint8Array([1]), serverUnixUs: BigInt(beatMs * 1_000) } } };
    }
  }
}

/** Looks through every line, but not through the stream of ten million. */
async function* search(request: SearchRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<MessageInitShape<typeof SearchResponseSchema>> {
  const regex = request.filter?.regex ? new RegExp(request.filter.regex, "m") : null;
  for (const id of request.streamIds) {
    const stream = find(Number(id));
    const head = Math.min(200_000, stream.count(Date.now()));
    for (let at = 0; at < head && !signal.aborted; at += 1) {
      const text = stream.line(at).text.toString();
      if (regex?.test(text)) yield { message: { case: "hits", value: { streamId: id, block: block(stream, at, at + 1) } } };
    }
  }
  yield { message: { case: "progress", value: { done: true } } };
}

function find(streamId: number): FakeStream {
  const stream = byId.get(streamId);
  if (!stream) throw new ConnectError(`There is no stream ${streamId}. See the list of streams.`, Code.NotFound);
  return stream;
}

/** Ten lines a second since the start, so that times can be counted back. */
function timeUs(stream: FakeStream, sequence: number): number {
  return (stream.startedMs + sequence * 3.6) * 1_000;
}

function sequenceAt(stream: FakeStream, unixUs: number, head: number): number {
  return Math.min(head, Math.max(0, Math.ceil((unixUs / 1_000 - stream.startedMs) / 3.6)));
}

function describe(stream: FakeStream): MessageInitShape<typeof StreamSchema> {
  const head = stream.count(Date.now());
  const isEnded = stream.endedMs !== undefined;
  const runId = `run-${stream.streamId}`;
  const labels: Record<string, string> = { host: stream.host, agent: stream.host, source: stream.source };
  if (stream.path) labels["path"] = stream.path;
  if (stream.argv) labels["run"] = runId;
  return {
    streamId: BigInt(stream.streamId),
    agentId: stream.host,
    instance: stream.path ?? runId,
    labels,
    state: isEnded ? StreamState.ENDED : stream.away ? StreamState.AWAY : StreamState.LIVE,
    firstSequence: BigInt(stream.first ?? 0),
    nextSequence: BigInt(head),
    textBytes: BigInt(head * 60),
    createdUnixUs: BigInt(stream.startedMs * 1_000),
    lastLineUnixUs: head === 0 ? 0n : BigInt((stream.endedMs ?? (stream.away ? stream.startedMs + 60_000 : Date.now())) * 1_000),
    run: stream.argv ? { runId, argv: stream.argv, cwd: "/home/ci/project", startUnixUs: BigInt(stream.startedMs * 1_000) } : undefined,
    end: isEnded
      ? {
          reason: EndReason.EXITED,
          endUnixUs: BigInt((stream.endedMs ?? 0) * 1_000),
          exitCode: stream.signal === undefined ? stream.exitCode : undefined,
          signal: stream.signal,
        }
      : undefined,
  };
}

function block(stream: FakeStream, from: number, to: number): Block {
  const text: Buffer[] = [];
  const channels: number[] = [];
  const flags: number[] = [];
  for (let at = from; at < to; at += 1) {
    const line = stream.line(at);
    text.push(line.text, Buffer.from("\n"));
    channels.push(line.channel, 1);
    flags.push(line.partial ? LineFlag.PARTIAL : 0, 1);
  }
  const bytes = new Uint8Array(Buffer.concat(text));
  // The lines after the first are 3,600 µs apart: zigzag(3600) = 7200.
  const times = to - from > 1 ? [0, 1, ...varint(7_200), ...varint(to - from - 1)] : [];
  return create(BlockSchema, {
    firstSequence: BigInt(from),
    lineCount: to - from,
    textBytes: bytes.length,
    codec: Codec.NONE,
    text: bytes,
    firstTimeUnixUs: BigInt(Math.round(timeUs(stream, from))),
    times: new Uint8Array(times),
    channels: new Uint8Array(channels),
    flags: new Uint8Array(flags),
  });
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  bytes.push(value);
  return bytes;
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
