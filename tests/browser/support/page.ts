// The page as a person uses it: what to look for, and what to click.
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import type { Locator, Page } from "@playwright/test";
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-node";

import { LogService } from "../../../web-client/src/gen/millstream/v1/log_pb";
import { repository } from "./binaries.ts";
import { demoUrl } from "./pipe.ts";

/** The hosts of the demo. */
export const HOSTS = ["build-linux", "build-arm", "ci-runner"];

export function client() {
  return createClient(LogService, createGrpcWebTransport({ baseUrl: demoUrl(), httpVersion: "1.1" }));
}

/** Id of the one stream that the selector selects, once it has `lines` lines. */
export async function streamId(selector: string, lines = 1): Promise<bigint> {
  const lists = client();
  const deadline = Date.now() + 90_000;
  for (;;) {
    const { streams } = await lists.listStreams({ selector });
    const [stream] = streams;
    if (streams.length === 1 && stream !== undefined && stream.nextSequence >= BigInt(lines)) {
      return stream.streamId;
    }
    if (Date.now() > deadline) {
      const seen = streams.map(({ streamId, nextSequence }) => `${streamId}: ${nextSequence} lines`);
      throw new Error(`${selector} does not select one stream with ${lines} lines; there is [${seen.join(", ")}]`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Ids of one talkative stream of every host. */
export async function busyStreams(): Promise<string> {
  const { streams } = await client().listStreams({ selector: "source in (cargo,tail)", pageSize: 100 });
  const busiest = HOSTS.map((host) => {
    const own = streams.filter((stream) => stream.labels.host === host);
    return own.sort((left, right) => Number(right.lastLineUnixUs - left.lastLineUnixUs))[0];
  });
  return busiest.map((stream) => String(stream?.streamId)).join(",");
}

export function row(page: Page, sequence: number): Locator {
  return page.locator(`[data-testid=log-row][data-sequence="${sequence}"]`);
}

/** The highest sequence that is on screen; -1: none is. */
export async function lastSequence(page: Page): Promise<number> {
  const sequences = await page
    .getByTestId("log-row")
    .evaluateAll((rows) => rows.map((row) => Number((row as HTMLElement).dataset.sequence)));
  return Math.max(-1, ...sequences);
}

/** Keeps a picture for people to look at. */
export async function picture(page: Page, name: string): Promise<void> {
  const dir = join(repository, "tests/artefacts/screenshots");
  mkdirSync(dir, { recursive: true });
  await page.screenshot({ path: join(dir, `${name}.png`) });
}
