/** The connection to the relay that served this page. */
import { createClient, type Client } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { LogService } from "../../gen/millstream/v1/log_pb";

export type LogClient = Client<typeof LogService>;

export function connectTo(baseUrl: string): LogClient {
  return createClient(LogService, createGrpcWebTransport({ baseUrl, useBinaryFormat: true }));
}
