// Starts the demo for all tests and stops it after the last, as a person would with Ctrl-C.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

import { binary, repository } from "./binaries.ts";

const START_LIMIT_MS = 120_000;

export default async function startDemo(): Promise<() => Promise<void>> {
  // For work on the tests that start a relay of their own.
  if (process.env.MILLSTREAM_NO_DEMO) return async () => undefined;
  const demo = spawn(binary("xtask"), ["demo", "--no-open", "--prebuilt", "dev"], {
    cwd: repository,
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    process.env.MILLSTREAM_DEMO_URL = await url(demo);
  } catch (error) {
    await stop(demo);
    throw error;
  }
  return () => stop(demo);
}

async function url(demo: ChildProcess): Promise<string> {
  const timer = setTimeout(() => demo.kill("SIGINT"), START_LIMIT_MS);
  try {
    for await (const line of createInterface({ input: demo.stdout! })) {
      if (line.startsWith("Open ")) {
        // Nobody reads the rest, and it must not block the demo.
        demo.stdout!.resume();
        return new URL(line.slice("Open ".length)).origin;
      }
    }
  } finally {
    clearTimeout(timer);
  }
  throw new Error("The demo ended without printing a URL; its messages stand above.");
}

async function stop(demo: ChildProcess): Promise<void> {
  if (demo.exitCode === null && demo.signalCode === null) {
    demo.kill("SIGINT");
    await once(demo, "exit");
  }
}
