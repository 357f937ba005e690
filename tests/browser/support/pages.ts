// The built pages of the working tree in front of a relay, for work on them: MILLSTREAM_PAGES=1 takes these
// instead of those that the relay was compiled with, so that a change does not need a new relay.
import { existsSync, readFileSync } from "node:fs";
import { type Server, createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";

import { repository } from "./binaries.ts";

const TYPES: Record<string, string> = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

/** As the relay has it. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export async function servePages(relay: () => string): Promise<{ server: Server; url: string }> {
  const dist = join(repository, "web-client/dist");
  const server = createServer((incoming, outgoing) => {
    const path = new URL(incoming.url ?? "/", "http://pages").pathname;
    if (/^\/(millstream|grpc|api\/|metrics|healthz|readyz)/.test(path)) {
      const outward = request(new URL(incoming.url ?? "/", relay()), { method: incoming.method, headers: incoming.headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        outgoing.flushHeaders();
        answer.pipe(outgoing);
        answer.on("error", () => outgoing.destroy());
      });
      outward.on("error", () => outgoing.destroy());
      outgoing.on("close", () => outward.destroy());
      incoming.pipe(outward);
      return;
    }
    const file = join(dist, path);
    const name = path.includes(".") && existsSync(file) ? file : join(dist, "index.html");
    outgoing.writeHead(200, { "content-type": TYPES[extname(name)] ?? "application/octet-stream", "content-security-policy": POLICY });
    outgoing.end(readFileSync(name));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}
