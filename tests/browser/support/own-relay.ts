// A relay of a test's own, and agents that send to it.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-node";

import { LogService } from "../../../web-client/src/gen/millstream/v1/log_pb";
import type { Stream } from "../../../web-client/src/gen/millstream/v1/stream_pb";
import { binary } from "./binaries.ts";
import { servePages } from "./pages.ts";

const READY = "millstream-relay listening on ";

export class Relay {
  /** Where the pages are. */
  url = "";
  /** Where agents send to. */
  #address = "";
  #pages: Server | null = null;
  readonly #dir = mkdtempSync(join(tmpdir(), "millstream-relay-"));
  readonly #children = new Set<ChildProcess>();
  #process: ChildProcess | null = null;

  static async start(): Promise<Relay> {
    const relay = new Relay();
    await relay.#run("127.0.0.1:0");
    relay.url = relay.#address;
    if (process.env.MILLSTREAM_PAGES) {
      const pages = await servePages(() => relay.#address);
      relay.#pages = pages.server;
      relay.url = pages.url;
    }
    return relay;
  }

  async #run(listen: string): Promise<void> {
    const process_ = spawn(binary("millstream-relay"), ["--listen", listen, "--data-dir", join(this.#dir, "relay")], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, MILLSTREAM_LOG: "warn" },
    });
    this.#process = process_;
    for await (const line of createInterface({ input: process_.stdout! })) {
      if (!line.startsWith(READY)) continue;
      this.#address = line.slice(READY.length).trim();
      process_.stdout!.resume();
      return;
    }
    throw new Error("the relay ended before it listened; its messages stand above");
  }

  client() {
    return createClient(LogService, createGrpcWebTransport({ baseUrl: this.#address, httpVersion: "1.1" }));
  }

  /** `kill -9`, so that every call breaks. */
  async kill(): Promise<void> {
    await end(this.#process, "SIGKILL");
  }

  /** Starts again where it was. */
  async restart(): Promise<void> {
    await this.#run(new URL(this.#address).host);
  }

  async stop(): Promise<void> {
    for (const child of this.#children) await end(child, "SIGKILL");
    endRuns(this.#dir);
    await end(this.#process, "SIGTERM");
    this.#pages?.closeAllConnections();
    this.#pages?.close();
    rmSync(this.#dir, { recursive: true, force: true, maxRetries: 5 });
  }

  /** An agent with a data directory of its own; `stdin` can be written to. */
  agent(host: string, args: readonly string[]): ChildProcess {
    const dataDir = mkdtempSync(join(this.#dir, "agent-"));
    const child = spawn(binary("millstream-agent"), ["--relay", this.#address, "--data-dir", dataDir, ...args], {
      stdio: ["pipe", "ignore", "inherit"],
      env: { ...process.env, MILLSTREAM_HOST: host, MILLSTREAM_LOG: "error" },
    });
    this.#children.add(child);
    return child;
  }

  /** A stream whose lines the test writes. */
  pipe(host: string, name: string): Pipe {
    return new Pipe(this.agent(host, ["pipe", "--name", name]));
  }

  /** Runs a shell script as a build and waits for its end, unless it goes on for ever. */
  async build(host: string, name: string, script: string, wait = true): Promise<ChildProcess> {
    const child = this.agent(host, ["exec", "--name", name, "--", "sh", "-c", script]);
    if (wait) await once(child, "exit");
    return child;
  }

  /** The stream that is selected, once there is one with so many lines and it pleases. */
  async stream(selector: string, lines = 1, pleases: (stream: Stream) => boolean = () => true): Promise<Stream> {
    const lists = this.client();
    const deadline = Date.now() + 90_000;
    for (;;) {
      const { streams } = await lists.listStreams({ selector });
      const stream = streams.find((each) => each.nextSequence >= BigInt(lines) && pleases(each));
      if (stream !== undefined) return stream;
      if (Date.now() > deadline) throw new Error(`${selector} selects no such stream; there are ${streams.length}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** A figure that the relay gives away. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.#address}/metrics`)).text();
    const line = text.split("\n").find((each) => each.startsWith(`${name} `));
    if (line === undefined) throw new Error(`the relay has no metric ${name}`);
    return Number(line.slice(name.length));
  }
}

export class Pipe {
  readonly #agent: ChildProcess;

  constructor(agent: ChildProcess) {
    this.#agent = agent;
  }

  async write(text: string): Promise<void> {
    if (!this.#agent.stdin!.write(text)) await once(this.#agent.stdin!, "drain");
  }

  async end(): Promise<void> {
    this.#agent.stdin!.end();
    if (this.#agent.exitCode === null) await once(this.#agent, "exit");
  }
}

/** Builds outlive their agents; those of agents below `dir` are ended with all that they started. */
function endRuns(dir: string): void {
  const of = (pid: string, file: string): string => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, "latin1");
    } catch {
      return ""; // It ended meanwhile.
    }
  };
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const doomed = new Set(pids.filter((pid) => of(pid, "cmdline").includes(`supervise-run\0${dir}/`)));
  // Parents come before their children often, but not always.
  for (let before = -1; before < doomed.size; ) {
    before = doomed.size;
    for (const pid of pids) {
      if (doomed.has(/^PPid:\t(\d+)$/m.exec(of(pid, "status"))?.[1] ?? "")) doomed.add(pid);
    }
  }
  for (const pid of doomed) {
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // It ended meanwhile.
    }
  }
}

async function end(child: ChildProcess | null, signal: NodeJS.Signals): Promise<void> {
  if (child === null || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, "exit");
}
