/** The shared worker: one hub for all tabs of this browser. */
import { connectTo } from "./lib/rpc/client";
import { HubServer } from "./lib/rpc/hub-server";

const server = new HubServer(connectTo(location.origin));

addEventListener("connect", (event) => {
  const [port] = (event as MessageEvent).ports;
  if (port !== undefined) server.connect(port);
});
addEventListener("online", () => server.retryNow());
