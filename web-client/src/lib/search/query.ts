/** What is looked for: as the relay takes it, and as the address bar keeps it (`?find=text&regex&case&only`). */
import { create } from "@bufbuild/protobuf";
import { FilterSchema, type Filter } from "../../gen/millstream/v1/log_pb";

export interface Query {
  readonly text: string;
  readonly isRegex: boolean;
  readonly matchesCase: boolean;
}

export const NO_QUERY: Query = { text: "", isRegex: false, matchesCase: false };

export function filterOf({ text, isRegex, matchesCase }: Query): Filter {
  return create(FilterSchema, { [isRegex ? "regex" : "substring"]: text, ignoreCase: !matchesCase });
}

/** A query in the address bar; `only`: lines without a hit are left out. */
export interface FindAddress {
  readonly query: Query;
  readonly only: boolean;
}

export function parseFind(search: string): FindAddress {
  const given = new URLSearchParams(search);
  return {
    query: { text: given.get("find") ?? "", isRegex: given.has("regex"), matchesCase: given.has("case") },
    only: given.has("only"),
  };
}

/** Begins with `?`, or is empty. */
export function formatFind({ query, only }: FindAddress): string {
  if (query.text === "") return "";
  const flags = [query.isRegex ? "&regex" : "", query.matchesCase ? "&case" : "", only ? "&only" : ""];
  return `?find=${encodeURIComponent(query.text)}${flags.join("")}`;
}
