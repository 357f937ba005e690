/** What a tab and the hub say to each other. Both ends are of one build of the pages. */
import type { Gap, StreamEnded } from "../../gen/millstream/v1/log_pb";
import type { Position, Stream } from "../../gen/millstream/v1/stream_pb";
import type { PackedLines } from "../block/packed";
import type { CatalogUpdate } from "./catalog-source";
import type { Phase } from "./tail";

/** The part of MessagePort that is used; also Node's has it. */
export interface PortLike {
  postMessage(message: unknown, options?: { transfer: ArrayBuffer[] }): void;
  onmessage: ((event: MessageEvent) => void) | null;
  close(): void;
}

export type ToHub =
  /** The first message. The hub learns by the lock that the tab is gone, where there are locks. */
  | { readonly kind: "hello"; readonly lockName: string | null }
  | { readonly kind: "follow"; readonly id: number; readonly streamIds: readonly number[]; readonly lastLines: number }
  | { readonly kind: "leave"; readonly id: number }
  | { readonly kind: "watch" }
  | { readonly kind: "retry" }
  /** So many bytes of lines, and updates of the lists, were dealt with. */
  | { readonly kind: "taken"; readonly bytes: number; readonly updates: number }
  | { readonly kind: "bye" };

export type TailEvent =
  | { readonly kind: "phase"; readonly phase: Phase }
  | { readonly kind: "stream"; readonly stream: Stream }
  | { readonly kind: "lines"; readonly lines: PackedLines }
  | { readonly kind: "gap"; readonly gap: Gap }
  | { readonly kind: "ended"; readonly ended: StreamEnded }
  | { readonly kind: "heads"; readonly heads: readonly Position[] }
  | { readonly kind: "skipped"; readonly streamId: number; readonly next: number }
  | { readonly kind: "reset" };

/** Something of a subscription. */
export interface PortEvent {
  readonly id: number;
  readonly event: TailEvent;
}

export type FromHub =
  | { readonly kind: "welcome" }
  | { readonly kind: "tail"; readonly events: readonly PortEvent[] }
  | { readonly kind: "catalog"; readonly update: CatalogUpdate };

/** What an event weighs in a port's queue, bytes. */
export function weightOf(event: TailEvent): number {
  return event.kind === "lines" ? event.lines.buffer.byteLength : 0;
}
