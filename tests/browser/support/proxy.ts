// Proxies that hold answers back, as some in front of a relay do.
import { type Server, createServer, request } from "node:http";
import type { AddressInfo } from "node:net";

/** When a proxy lets through what it holds. */
export interface Holding {
  /** Once so many bytes have gathered. */
  readonly bytes?: number;
  /** So often, milliseconds. */
  readonly everyMs?: number;
}

export class BufferingProxy {
  /** What is held back is decided anew for each piece, so that it can be switched off under an open call. */
  holding: Holding | null;
  readonly #server: Server;

  private constructor(target: string, holding: Holding) {
    this.holding = holding;
    this.#server = createServer((incoming, outgoing) => {
      const outward = request(new URL(incoming.url ?? "/", target), { method: incoming.method, headers: incoming.headers }, (answer) => {
        const held: Buffer[] = [];
        let releasedMs = Date.now();
        const release = (): void => {
          releasedMs = Date.now();
          if (!outgoing.headersSent) outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
          for (const piece of held.splice(0)) outgoing.write(piece);
        };
        const timer = setInterval(() => {
          const everyMs = this.holding === null ? 0 : (this.holding.everyMs ?? Infinity);
          if (held.length > 0 && Date.now() - releasedMs >= everyMs) release();
        }, 100);
        answer.on("data", (piece: Buffer) => {
          held.push(piece);
          const size = held.reduce((sum, each) => sum + each.length, 0);
          if (this.holding === null || (this.holding.bytes !== undefined && size >= this.holding.bytes)) release();
        });
        answer.on("end", () => {
          clearInterval(timer);
          release();
          outgoing.end();
        });
        answer.on("error", () => outgoing.destroy());
        outgoing.on("close", () => {
          clearInterval(timer);
          answer.destroy();
        });
      });
      outward.on("error", () => outgoing.destroy());
      outgoing.on("close", () => outward.destroy());
      incoming.pipe(outward);
    });
  }

  static async start(target: string, holding: Holding): Promise<BufferingProxy> {
    const proxy = new BufferingProxy(target, holding);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
