import { mount } from "svelte";
import App from "./App.svelte";
import { connect } from "./lib/rpc/connection";
import "./styles/base.css";
import "./styles/log.css";

const target = document.getElementById("app");
if (target === null) throw new Error("index.html has no element #app");
const connection = await connect(
  location.origin,
  // Written out so that the bundler finds the worker.
  () => new SharedWorker(new URL("./hub.worker.ts", import.meta.url), { type: "module", name: "millstream" }),
);
addEventListener("pagehide", () => connection.close());
// A page from the browser's memory has let go of its connection.
addEventListener("pageshow", (event) => event.persisted && location.reload());
mount(App, { target, props: { connection } });
