import { mount } from "svelte";
import Gate from "./Gate.svelte";
import { connect } from "./lib/rpc/connection";
import "./styles/base.css";
import "./styles/log.css";

const target = document.getElementById("app");
if (target === null) throw new Error("index.html has no element #app");
const open = () =>
  connect(
    location.origin,
    // Written out so that the bundler finds the worker.
    () => new SharedWorker(new URL("./hub.worker.ts", import.meta.url), { type: "module", name: "millstream" }),
  );
// A page from the browser's memory has let go of its connection.
addEventListener("pageshow", (event) => event.persisted && location.reload());
mount(Gate, { target, props: { connect: open } });
