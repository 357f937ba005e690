import { mount } from "svelte";
<<<<<<< HEAD
import Gate from "./Gate.svelte";
=======
import hubUrl from "virtual:hub-url";
import App from "./App.svelte";
>>>>>>> de29403 (Lead from places in sources to where the configuration says, and load what page and worker share once)
import { connect } from "./lib/rpc/connection";
import "./styles/base.css";
import "./styles/log.css";

const target = document.getElementById("app");
if (target === null) throw new Error("index.html has no element #app");
<<<<<<< HEAD
const open = () =>
  connect(
    location.origin,
    // Written out so that the bundler finds the worker.
    () => new SharedWorker(new URL("./hub.worker.ts", import.meta.url), { type: "module", name: "millstream" }),
  );
=======
const connection = await connect(
  location.origin,
  () => new SharedWorker(hubUrl, { type: "module", name: "millstream" }),
);
addEventListener("pagehide", () => connection.close());
>>>>>>> de29403 (Lead from places in sources to where the configuration says, and load what page and worker share once)
// A page from the browser's memory has let go of its connection.
addEventListener("pageshow", (event) => event.persisted && location.reload());
mount(Gate, { target, props: { connect: open } });
