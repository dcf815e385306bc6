/** What the importers of other systems' policies share. */
import { describe, FormatError } from "../../errors.js";
import { type LayerPolicy, type LayerRule, parsePolicy } from "../layer-reuse-policy.js";

/** How one query or KV head attends, where a file says that and a policy cannot. */
export interface HeadPattern {
  readonly layer: number;
  readonly head: number;
  /** Such as vertical_and_slash (tokens, diagonals), stream_llm (first, last tokens), streaming (sink, recent), full. */
  readonly pattern: string;
  readonly sizes: readonly number[];
  /** What the file holds beside: a search's score, a gate. */
  readonly score: number;
}

export interface ImportedPolicy {
  readonly format: "ucm" | "kascade" | "indexer" | "hshare" | "minference" | "duo";
  readonly policy: LayerPolicy;
  /** What the file says and the policy does not, in sentences. */
  readonly notExpressed: readonly string[];
  /** Each head's pattern, for formats by head. */
  readonly heads?: readonly HeadPattern[];
  readonly model?: string;
}

/** A policy through the checks that every policy.json goes through. */
export function checked(where: string, layers: readonly LayerRule[], rest: Partial<LayerPolicy>): LayerPolicy {
  return parsePolicy({ version: 2, layers, ...rest }, { where });
}

export function parsedJson(where: string, source: unknown): unknown {
  if (typeof source !== "string") return source;
  try {
    return JSON.parse(source);
  } catch (cause) {
    throw new FormatError({ where, expected: "JSON", received: (cause as Error).message, cause });
  }
}

export function parsedObject(where: string, source: unknown): Record<string, unknown> {
  const value = parsedJson(where, source);
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new FormatError({ where, expected: "a JSON object", received: describe(value) });
  return value as Record<string, unknown>;
}

export function wholeIn(where: string, value: unknown, least: number, most = 2 ** 31 - 2): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most)
    throw new FormatError({ where, expected: `a whole number from ${least} to ${most}`, received: describe(value) });
  return value;
}

/** A list of a value for each layer. */
export function perLayer(where: string, value: unknown, layers: number): readonly unknown[] {
  if (!Array.isArray(value) || value.length !== layers)
    throw new FormatError({ where, expected: `a list of ${layers} entries, one for each layer`, received: describe(value) });
  return value;
}

/** `1 to 3, 7`: ascending numbers in few words. */
export function ranges(numbers: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from} to ${to}`)).join(", ");
}
