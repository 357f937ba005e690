// `millstream-agent pipe`: a stream whose lines a test writes.
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { binary } from "./binaries.ts";

export function demoUrl(): string {
  const url = process.env.MILLSTREAM_DEMO_URL;
  if (url === undefined) {
    throw new Error("the global set-up starts the demo and sets its URL");
  }
  return url;
}

export class Pipe {
  /** Selects its stream, also where a test runs again and the demo has an older one of that name. */
  readonly selector = `pipe=${randomUUID()}`;
  private readonly dataDir = mkdtempSync(join(tmpdir(), "millstream-pipe-"));
  private readonly agent: ChildProcess;

  constructor(host: string, name: string) {
    this.agent = spawn(
      binary("millstream-agent"),
      ["--relay", demoUrl(), "--data-dir", this.dataDir, "--label", this.selector, "pipe", "--name", name],
      { stdio: ["pipe", "ignore", "inherit"], env: { ...process.env, MILLSTREAM_HOST: host, MILLSTREAM_LOG: "warn" } },
    );
  }

  /** Writes text and waits until the pipe has taken it. */
  async write(text: string): Promise<void> {
    if (!this.agent.stdin!.write(text)) {
      await once(this.agent.stdin!, "drain");
    }
  }

  /** Ends standard input and waits until the agent has delivered everything. */
  async end(): Promise<void> {
    this.agent.stdin!.end();
    if (this.agent.exitCode === null) {
      await once(this.agent, "exit");
    }
    rmSync(this.dataDir, { recursive: true, force: true });
  }
}
