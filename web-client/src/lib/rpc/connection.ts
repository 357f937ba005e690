/**
 * The page's connection to its relay. Long calls are made by a hub, which the tabs of a browser share: over
 * HTTP/1.1 a browser opens six connections to a relay, and every tab would need two for itself. Where there
 * is no shared worker the tab makes its own hub, and says so when tabs are too many.
 */
import { HubLink } from "./hub-link";
import { HubServer } from "./hub-server";
import { Control } from "../control/control";
import { connectTo, type LogClient } from "./client";

export interface Connection {
  /** For short calls. */
  readonly client: LogClient;
  readonly control: Control;
  readonly hub: HubLink;
  /** The tabs of this browser share their long calls. */
  readonly isShared: boolean;
  close(): void;
}

/** A worker that does not answer so soon is not there, milliseconds. */
const WELCOME_MS = 4_000;

/** Connects through the worker that `open` starts, or by itself where that fails. */
export async function connect(baseUrl: string, open: () => SharedWorker): Promise<Connection> {
  const client = connectTo(baseUrl);
  const control = new Control(baseUrl);
  const hub = await linkTo(open);
  if (hub !== null) return { client, control, hub, isShared: true, close: () => hub.close() };
  const server = new HubServer(client);
  const { port1, port2 } = new MessageChannel();
  server.connect(port1);
  const own = new HubLink(port2, null);
  return {
    client,
    control,
    hub: own,
    isShared: false,
    close: () => {
      own.close();
      server.close();
    },
  };
}

async function linkTo(open: () => SharedWorker): Promise<HubLink | null> {
  if (typeof SharedWorker === "undefined") return null;
  const lockName = await holdLock();
  return new Promise((resolve) => {
    try {
      const worker = open();
      worker.addEventListener("error", () => resolve(null));
      const link = new HubLink(worker.port, lockName, () => resolve(link));
      setTimeout(() => resolve(null), WELCOME_MS);
    } catch {
      resolve(null);
    }
  });
}

/** Holds a lock until the tab is gone; null where there are no locks (pages over plain HTTP have none). */
async function holdLock(): Promise<string | null> {
  if (!("locks" in navigator)) return null;
  const name = `millstream-tab-${crypto.randomUUID()}`;
  await new Promise<void>((held) => {
    void navigator.locks.request(name, () => {
      held();
      return new Promise(() => undefined);
    });
  });
  return name;
}
