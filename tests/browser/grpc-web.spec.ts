// gRPC-Web from Node: messages arrive one by one while the call is open, and errors come through.
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-node";
import { expect, test } from "@playwright/test";

import { LogService, TailRequestSchema } from "../../web-client/src/gen/millstream/v1/log_pb";
import { Pipe, demoUrl } from "./support/pipe.ts";

const LINES = 50;

for (const httpVersion of ["1.1", "2"] as const) {
  test(`over HTTP/${httpVersion} every line arrives before the next one is written`, async () => {
    const name = `drip-${httpVersion.replace(".", "-")}`;
    const client = createClient(LogService, createGrpcWebTransport({ baseUrl: demoUrl(), httpVersion }));
    const pipe = new Pipe("drip-host", name);
    const stop = new AbortController();
    const request = create(TailRequestSchema, {
      selector: pipe.selector,
      start: { case: "fromBeginning", value: true },
      follow: true,
    });
    const got: string[] = [];
    let streamEnded = false;
    await pipe.write("line 0\n");
    for await (const response of client.tail(request, { signal: stop.signal })) {
      if (response.message.case === "block") {
        const text = new TextDecoder().decode(response.message.value.block!.text);
        got.push(...text.split("\n").slice(0, -1));
        // The next line is written only now: a transport that waits for the end would wait for ever.
        if (got.length < LINES) {
          await pipe.write(`line ${got.length}\n`);
        } else {
          await pipe.end();
        }
      } else if (response.message.case === "streamEnded") {
        streamEnded = true;
        break;
      }
    }
    stop.abort();
    expect(got).toEqual(Array.from({ length: LINES }, (_, number) => `line ${number}`));
    expect(streamEnded).toBe(true);
  });

  test(`over HTTP/${httpVersion} errors arrive with code and message`, async () => {
    const client = createClient(LogService, createGrpcWebTransport({ baseUrl: demoUrl(), httpVersion }));
    const read = await client.read({ streamId: 4711n }).catch((error: unknown) => error);
    expect(ConnectError.from(read).code).toBe(Code.NotFound);
    expect(ConnectError.from(read).message).toContain("4711");

    const tail = async () => {
      for await (const response of client.tail({ selector: "host in (a" })) {
        throw new Error(`a selector that does not parse was answered with ${response.message.case}`);
      }
    };
    const refused = await tail().catch((error: unknown) => error);
    expect(ConnectError.from(refused).code).toBe(Code.InvalidArgument);
    expect(ConnectError.from(refused).message).toContain("position 10");
  });
}
