// The two ways from a file to a page: through agent and relay, and the article's.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-node";

import { LogService } from "../../../web-client/src/gen/millstream/v1/log_pb";

export interface System {
  readonly name: string;
  /** Selects the painted rows; the last one is the newest line. */
  readonly rows: string;
  /** Address of the page that follows the file; resolves when at least `lines` lines are there to be shown. */
  page(lines: number): Promise<string>;
  stop(): Promise<void>;
}

const bin = (name: string): string => join(process.env.MILLSTREAM_BIN_DIR ?? "", name);

async function firstLine(child: ChildProcess): Promise<string> {
  for await (const line of createInterface({ input: child.stdout! })) {
    child.stdout!.resume();
    return line;
  }
  throw new Error("a program ended before it said that it is ready");
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGTERM");
  await once(child, "exit");
}

export async function millstream(file: string, dir: string): Promise<System> {
  mkdirSync(dir, { recursive: true });
  const env = { ...process.env, MILLSTREAM_LOG: "warn" };
  const stdio: ["ignore", "pipe", "inherit"] = ["ignore", "pipe", "inherit"];
  const relay = spawn(bin("millstream-relay"), ["--listen", "127.0.0.1:0", "--data-dir", join(dir, "relay")], { env, stdio });
  const url = (await firstLine(relay)).replace("millstream-relay listening on ", "");
  const agent = spawn(bin("millstream-agent"), ["--relay", url, "--data-dir", join(dir, "agent"), "--file", file], { env, stdio });
  agent.stdout!.resume();
  const client = createClient(LogService, createGrpcWebTransport({ baseUrl: url, httpVersion: "1.1" }));
  return {
    name: "Millstream",
    rows: "[data-testid=log-row] [data-testid=log-text]",
    async page(lines) {
      for (;;) {
        const { streams } = await client.listStreams({ selector: "source=file" });
        const [stream] = streams;
        if (stream !== undefined && Number(stream.nextSequence) >= lines) return `${url}/streams/${stream.streamId}`;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    async stop() {
      await stop(agent);
      await stop(relay);
    },
  };
}

export async function article(file: string): Promise<System> {
  const script = join(import.meta.dirname, "article-server.mjs");
  const server = spawn(process.execPath, [script, file], { stdio: ["ignore", "pipe", "inherit"] });
  const url = await firstLine(server);
  return { name: "article", rows: "#log > div", page: async () => url, stop: () => stop(server) };
}

/** Appends stamped lines at a steady rate; resolves when all are written. */
export async function write(file: string, rate: number, lines: number): Promise<void> {
  const writer = spawn(bin("millstream-bench-probe"), ["write", file, "--rate", String(rate), "--lines", String(lines)], { stdio: ["ignore", "ignore", "inherit"] });
  const [code] = await once(writer, "exit");
  if (code !== 0) throw new Error(`the writer ended with ${code}`);
}
