/** What can be done with a source or a run from here, and doing it. */
import { createClient, type Client } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { ControlService } from "../../gen/millstream/v1/control_pb";
import { SourceState, type Agent, type Run, type SourceStatus, type Stream } from "../../gen/millstream/v1/stream_pb";
import { describeFailure } from "../rpc/failure";

/** One source of an agent that takes commands. */
export interface Controlled {
  readonly agent: Agent;
  readonly status: SourceStatus;
}

export type Action = "start" | "stop" | "restart" | "set_command";

/** What the agent allows on the source that a stream is of; null: nothing is known, or nothing allowed. */
export function controlledOf(stream: Stream, agents: ReadonlyMap<string, Agent>): Controlled | null {
  const agent = agents.get(stream.agentId);
  const status = agent?.sources.find((source) => source.source === stream.labels["source"]);
  return agent && status && status.allowedActions.length > 0 ? { agent, status } : null;
}

/** Whether a stream is of this source. */
export function isOf(stream: Stream, { agent, status }: Controlled): boolean {
  return stream.agentId === agent.agentId && stream.labels["source"] === status.source;
}

/** Sources of a host that a person may start and that do not run. */
export function startable(agents: Iterable<Agent>, host: string): Controlled[] {
  return [...agents]
    .filter((agent) => agent.host === host && agent.isAttached)
    .flatMap((agent) => agent.sources.map((status) => ({ agent, status })))
    .filter(({ status }) => status.runId === "" && status.allowedActions.includes("start"))
    .sort((a, b) => a.status.source.localeCompare(b.status.source, "en", { numeric: true }));
}

export function isAllowed({ status }: Controlled, action: Action): boolean {
  return status.allowedActions.includes(action);
}

export function isStopping({ status }: Controlled): boolean {
  return status.state === SourceState.STOPPING;
}

/** Calls of the control service. Each returns null when it is done, or a sentence that says why it is not. */
export class Control {
  /** Told of each run that was started here. */
  onRun: ((target: Controlled, runId: string) => void) | null = null;
  readonly #client: Client<typeof ControlService>;

  constructor(baseUrl: string) {
    this.#client = createClient(ControlService, createGrpcWebTransport({ baseUrl, useBinaryFormat: true }));
  }

  async start(target: Controlled): Promise<string | null> {
    return this.#run(target, this.#client.start({ target: named(target) }));
  }

  async stop(runId: string): Promise<string | null> {
    return attempt(this.#client.stop({ target: { case: "runId", value: runId } }));
  }

  /** Of a run that is over too: it runs again. */
  async restart(target: Controlled): Promise<string | null> {
    return this.#run(target, this.#client.restart({ target: { case: "source", value: named(target) } }));
  }

  #run(target: Controlled, call: Promise<{ run?: Run }>): Promise<string | null> {
    return attempt(call.then(({ run }) => run && this.onRun?.(target, run.runId)));
  }

  /** No words: back to the configured command. */
  async setCommand(target: Controlled, argv: readonly string[]): Promise<string | null> {
    return attempt(this.#client.setCommand({ target: named(target), argv: [...argv], expectedArgv: target.status.argv }));
  }
}

function named({ agent, status }: Controlled): { agentId: string; source: string } {
  return { agentId: agent.agentId, source: status.source };
}

async function attempt(call: Promise<unknown>): Promise<string | null> {
  try {
    await call;
    return null;
  } catch (error) {
    return describeFailure(error).message;
  }
}
