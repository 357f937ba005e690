// The article's way: for each reader a `tail -f`, whose chunks go as JSON through a WebSocket; the page appends them to
// its document. Nothing is stored. Prints its URL.
import { spawn } from "node:child_process";
import { createServer } from "node:http";

import { WebSocketServer } from "ws";

const [, , file] = process.argv;

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>tail -f</title>
<style>body { margin: 0 } #log { height: 100vh; overflow: auto; font: 12.5px/20px monospace; white-space: pre }</style>
<div id="log"></div>
<script>
  const log = document.getElementById("log");
  let rest = "";
  new WebSocket("ws://" + location.host).onmessage = (event) => {
    const lines = (rest + JSON.parse(event.data).data).split("\\n");
    rest = lines.pop();
    for (const line of lines) {
      const row = document.createElement("div");
      row.textContent = line;
      log.append(row);
    }
    log.scrollTop = log.scrollHeight;
  };
</script>`;

const server = createServer((_request, response) => {
  response.setHeader("content-type", "text/html; charset=utf-8");
  response.end(PAGE);
});

const tails = new Set();
// Ended by the benchmark, it does not hear of its sockets' ends any more.
process.on("SIGTERM", () => {
  for (const tail of tails) tail.kill();
  process.exit();
});

new WebSocketServer({ server }).on("connection", (socket) => {
  const tail = spawn("tail", ["-n", "+1", "-f", file]);
  tails.add(tail);
  tail.on("exit", () => tails.delete(tail));
  tail.stdout.on("data", (chunk) => socket.send(JSON.stringify({ type: "chunk", data: chunk.toString() })));
  socket.on("close", () => tail.kill());
  socket.on("error", () => tail.kill());
});

server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
