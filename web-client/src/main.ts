import { mount } from "svelte";
import hubUrl from "virtual:hub-url";
import Gate from "./Gate.svelte";
import { connect } from "./lib/rpc/connection";
import "./styles/base.css";
import "./styles/log.css";
import "./styles/rows.css";

const target = document.getElementById("app");
if (target === null) throw new Error("index.html has no element #app");
const open = () => connect(location.origin, () => new SharedWorker(hubUrl, { type: "module", name: "millstream" }));
// A page from the browser's memory has let go of its connection.
addEventListener("pageshow", (event) => event.persisted && location.reload());
mount(Gate, { target, props: { connect: open } });
