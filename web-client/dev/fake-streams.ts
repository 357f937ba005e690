/** Streams of the fake relay: real build logs, a stream of ten million made-up lines, a fast one. */
import { readFileSync } from "node:fs";
import { Channel } from "../src/gen/millstream/v1/block_pb";

export interface FakeLine {
  text: Buffer;
  channel: Channel;
  partial: boolean;
}

export interface FakeStream {
  streamId: number;
  host: string;
  source: string;
  path?: string;
  argv?: string[];
  startedMs: number;
  away?: boolean;
  exitCode?: number;
  signal?: number;
  endedMs?: number;
  /** Oldest stored line. */
  first?: number;
  /** Lines at a time. */
  count: (nowMs: number) => number;
  line: (sequence: number) => FakeLine;
}

const plain = (text: string | Buffer): FakeLine => ({ text: Buffer.from(text), channel: Channel.STDOUT, partial: false });

function fileLines(name: string): FakeLine[] {
  const bytes = readFileSync(new URL(`../testdata/${name}`, import.meta.url));
  const lines: FakeLine[] = [];
  for (let start = 0; start < bytes.length; ) {
    const end = bytes.indexOf(10, start);
    lines.push(plain(bytes.subarray(start, end < 0 ? bytes.length : end)));
    start = end < 0 ? bytes.length : end + 1;
  }
  return lines;
}

const began = Date.now();
const minute = 60_000;

export function fakeStreams(): FakeStream[] {
  const cargo = fileLines("cargo-build-failed.ansi.log");
  const pip = fileLines("pip-progress.ansi.log");
  const cpython = [...fileLines("cpython-build-1.log"), ...fileLines("cpython-build-2.log")];
  const markers = ["github", "azure", "gitlab", "buildkite", "teamcity", "travis", "buildkit"].map((name) => fileLines(`markers/${name}.log`));
  const bars = ["uv-install", "rich-progress", "tqdm-bars", "npm-install", "cargo-build-tty"].flatMap((name) => fileLines(`${name}.ansi.log`));
  const notice: FakeLine = {
    text: Buffer.from("file-rotated: /var/log/app.log was renamed; finishing it, then reading the new file"),
    channel: Channel.NOTICE,
    partial: false,
  };
  const mixed = [
    plain("Starting the service"),
    plain("<img src=x onerror=alert(1)><script>alert(2)</script>"),
    { text: Buffer.from([0x62, 0x61, 0x64, 0x3a, 0xff, 0xfe, 0x21]), channel: Channel.STDOUT, partial: false },
    { ...plain("warning: something on standard error"), channel: Channel.STDERR },
    notice,
    { ...plain("a long line that came "), partial: true },
    { ...plain("in two "), partial: true },
    plain("pieces"),
    plain("truecolor: \x1b[38;2;255;120;40mten\x1b[38;2;60;200;120m twelve\x1b[0m \x1b[1;4munderlined\x1b[0m \x1b[7minverse\x1b[0m \x1b[3mitalic\x1b[0m \x1b[2mdim\x1b[0m \x1b[9mstrike\x1b[0m"),
    plain(Array.from({ length: 16 }, (_, at) => `\x1b[${at < 8 ? 30 + at : 82 + at}m colour${at}`).join("")),
    plain(Array.from({ length: 16 }, (_, at) => `\x1b[${at < 8 ? 40 + at : 92 + at}m ${at} `).join("")),
    plain(`wide: ${"x".repeat(400)} end`),
  ];
  return [
    fixed(1, "build-1", "cargo", ["cargo", "build", "--color=always"], cargo, { exitCode: 101 }),
    fixed(2, "build-1", "pip", ["pip", "install", "pytest"], pip, { exitCode: 0 }),
    {
      streamId: 3,
      host: "build-2",
      source: "archive",
      path: "/srv/logs/ten-million.log",
      startedMs: began - 600 * minute,
      count: (now) => 10_000_000 + Math.floor((now - began) / 1_000),
      line: (at) => plain(`${at % 7 === 0 ? "\x1b[33mWARN\x1b[0m" : "\x1b[32mINFO\x1b[0m"} request ${at} took ${(at * 37) % 1000} ms on worker-${at % 13}`),
    },
    {
      streamId: 4,
      host: "build-2",
      source: "fast",
      path: "/srv/logs/fast.log",
      startedMs: began,
      count: (now) => Math.floor(((now - began) / 1_000) * Number(process.env["FAKE_RATE"] ?? 200)),
      line: (at) => cpython[at % cpython.length] ?? plain(""),
    },
    {
      streamId: 5,
      host: "ci-runner-with-a-very-long-name.eu-central-1.compute.internal.example.com",
      source: "application-server-with-long-name",
      path: "/var/log/applications/some/deep/folder/structure/application-server-2026-11-24.production.log",
      startedMs: began - 5 * minute,
      count: (now) => mixed.length + Math.floor((now - began) / 2_000),
      line: (at) => mixed[at % mixed.length] ?? plain(""),
    },
    { streamId: 6, host: "build-3", source: "tail", path: "/var/log/syslog", startedMs: began - 90 * minute, away: true, first: 200, count: () => 400, line: (at) => plain(`Nov 24 syslog line ${at}`) },
    { streamId: 7, host: "build-3", source: "empty", path: "/var/log/empty.log", startedMs: began, count: () => 0, line: () => plain("") },
    ...Array.from({ length: Number(process.env["FAKE_STREAMS"] ?? 0) }, (_, at) => many(100 + at, cargo)),
    ...markers.map((lines, at) => fixed(40 + at, "ci", ["github", "azure", "gitlab", "buildkite", "teamcity", "travis", "buildkit"][at] ?? "", ["ci", "run"], lines, { exitCode: 1 })),
    fixed(48, "ci", "bars", ["make", "install"], bars, { exitCode: 0 }),
    fixed(49, "ci", "long", ["ci", "run"], [plain("::group::Set up"), ...Array.from({ length: 400 }, (_, at) => plain(`set up ${at}`)), plain("::endgroup::"), plain("::group::Build"), plain("::group::Compile the whole workspace with every feature, warnings as errors, in a title that is rather long for its place"), ...cpython.flatMap((line) => [line, line]), plain("::endgroup::"), plain("::error file=src/wheel.rs,line=12,col=9::cannot find value `teeth` in this scope"), ...cargo, plain("::endgroup::"), plain("done")], { exitCode: 101 }),
    ...Array.from({ length: 12 }, (_, at) =>
      fixed(20 + at, "build-1", "cargo", ["cargo", "build", "--color=always"], cargo.slice(0, 14), { exitCode: at % 5 === 0 ? 101 : 0, signal: at === 11 ? 9 : undefined }),
    ),
  ];
}

/** One of very many: three in four are runs, most of which are over. */
function many(streamId: number, lines: FakeLine[]): FakeStream {
  const host = `worker-${streamId % 40}`;
  if (streamId % 4 === 0) {
    const rate = (streamId % 7) * 3;
    return { streamId, host, source: `service-${streamId % 60}`, path: `/var/log/service-${streamId}.log`, startedMs: began, count: (now) => Math.floor(((now - began) / 1_000) * rate), line: (at) => lines[at % lines.length] ?? plain("") };
  }
  const argv = ["make", "-j8", `target-${streamId % 25}`];
  if (streamId % 16 === 1) {
    // Half of what runs has not said anything for two minutes.
    const isSilent = streamId % 32 === 1;
    return { streamId, host, source: `job-${streamId % 30}`, argv, startedMs: began - 120_000, count: (now) => (isSilent ? 0 : Math.floor((now - began) / 150)), line: (at) => lines[at % lines.length] ?? plain("") };
  }
  const startedMs = began - (streamId % 500) * 3 * minute - 10 * minute;
  return { streamId, host, source: `job-${streamId % 30}`, argv, startedMs, endedMs: startedMs + 192_000, exitCode: streamId % 5 === 0 ? 2 : 0, count: () => lines.length, line: (at) => lines[at] ?? plain("") };
}

function fixed(streamId: number, host: string, source: string, argv: string[], lines: FakeLine[], end: Pick<FakeStream, "exitCode" | "signal">): FakeStream {
  const startedMs = began - (60 - streamId) * minute;
  return { streamId, host, source, argv, startedMs, endedMs: startedMs + 192_000, ...end, count: () => lines.length, line: (at) => lines[at] ?? plain("") };
}
