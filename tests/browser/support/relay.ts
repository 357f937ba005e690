// A relay of a test's own, with certificates and tokens made by its commands; ended by the test.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { binary } from "./binaries.ts";

const READY = "millstream-relay listening on ";

export class TestRelay {
  readonly #agents: ChildProcess[] = [];

  private constructor(
    private readonly process: ChildProcess,
    readonly directory: string,
    readonly url: string,
  ) {}

  /** With TLS and tokens, and what else stands in the file. */
  static async secure(file: (directory: string) => string = () => ""): Promise<TestRelay> {
    const directory = mkdtempSync(join(tmpdir(), "millstream-secure-"));
    admin(directory, "certs", "init");
    admin(directory, "certs", "issue", "--name", "127.0.0.1");
    const certs = join(directory, "relay/certs");
    const config = join(directory, "relay.toml");
    writeFileSync(config, file(directory));
    return this.start(directory, [
      `--config=${config}`,
      "--listen=127.0.0.1:0",
      "--auth",
      `--tls-cert=${join(certs, "127.0.0.1.pem")}`,
      `--tls-key=${join(certs, "127.0.0.1-key.pem")}`,
    ]);
  }

  static async with(flags: string[]): Promise<TestRelay> {
    return this.start(mkdtempSync(join(tmpdir(), "millstream-relay-")), flags);
  }

  private static async start(directory: string, flags: string[]): Promise<TestRelay> {
    const args = ["--data-dir", join(directory, "relay"), ...flags];
    const child = spawn(binary("millstream-relay"), args, {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, MILLSTREAM_LOG: "error" },
    });
    for await (const line of createInterface({ input: child.stdout! })) {
      if (line.startsWith(READY)) return new TestRelay(child, directory, line.slice(READY.length).trim());
    }
    throw new Error("the relay ended before it was ready");
  }

  token(name: string, ...args: string[]): string {
    return admin(this.directory, "token", "create", "--name", name, ...args).trim();
  }

  revoke(name: string): void {
    admin(this.directory, "token", "revoke", name);
  }

  /** Sends a text as one source of a host. */
  send(host: string, name: string, text: string, label: string): void {
    const tokenFile = join(this.directory, "agent.token");
    writeFileSync(tokenFile, this.token(`agent-${Math.random().toString(36).slice(2)}`, "--role", "agent", "--scope", "host"));
    const ca = join(this.directory, "relay/certs/ca.pem");
    execFileSync(
      binary("millstream-agent"),
      [
        ...["--relay", this.url, "--ca", ca, "--token-file", tokenFile, "--label", label],
        ...["--data-dir", join(this.directory, "agent"), "pipe", "--name", name],
      ],
      { input: text, env: { ...process.env, MILLSTREAM_HOST: host, MILLSTREAM_LOG: "warn" } },
    );
  }

  /** An agent of the host, with a configuration; ended with the relay. */
  agent(host: string, config: string): void {
    const tokenFile = join(this.directory, `${host}.token`);
    writeFileSync(tokenFile, this.token(`agent-${host}`, "--role", "agent", "--scope", "host"));
    const configFile = join(this.directory, `${host}.toml`);
    writeFileSync(configFile, config);
    const ca = join(this.directory, "relay/certs/ca.pem");
    const args = ["--relay", this.url, "--ca", ca, "--token-file", tokenFile, "--data-dir", join(this.directory, host), "--config", configFile];
    const env = { ...process.env, MILLSTREAM_HOST: host, MILLSTREAM_LOG: "error" };
    this.#agents.push(spawn(binary("millstream-agent"), args, { stdio: ["ignore", "ignore", "inherit"], env }));
  }

  async stop(): Promise<void> {
    for (const agent of this.#agents) {
      if (agent.exitCode !== null || agent.signalCode !== null) continue;
      agent.kill("SIGTERM");
      await once(agent, "exit");
    }
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill("SIGTERM");
      await once(this.process, "exit");
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function admin(directory: string, ...args: string[]): string {
  return execFileSync(binary("millstream-relay"), ["--data-dir", join(directory, "relay"), ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
}
