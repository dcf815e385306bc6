/** Formats that say something of each head: MInference's patterns of prefill, and DuoAttention's gates. */
import { describe, FormatError } from "../../errors.js";
import type { LayerRule } from "../layer-reuse-policy.js";
import { checked, type HeadPattern, type ImportedPolicy, parsedJson, ranges, wholeIn } from "./imported.js";

const patterns = ["vertical_and_slash", "stream_llm", "block_sparse"];

/**
 * A best_pattern file of MInference (MIT, Microsoft): for each layer and query head a pattern of prefill, its two sizes and
 * the score of its search. Decoding is dense there, so the policy's layers are full; `heads` holds the patterns. Throws
 * FormatError.
 */
export function importMInference(source: unknown, where = "minference pattern"): ImportedPolicy {
  const file = parsedJson(where, source);
  if (!Array.isArray(file) || file.length === 0 || file.length > 65536)
    throw new FormatError({ where, expected: "a list of layers", received: describe(file) });
  const heads: HeadPattern[] = [];
  const counts = new Map<string, number>();
  let width = 0;
  for (const [layer, entry] of file.entries()) {
    if (typeof entry !== "object" || entry === null || Array.isArray(entry))
      throw new FormatError({ where: `${where}[${layer}]`, expected: "an object with an entry for each head", received: describe(entry) });
    const count = Object.keys(entry).length;
    if (layer === 0) width = count;
    if (count === 0 || count !== width)
      throw new FormatError({
        where: `${where}[${layer}]`,
        expected: width === 0 ? "a head at least" : `${width} heads`,
        received: `${count}`,
      });
    for (let head = 0; head < width; head++) {
      const place = `${where}[${layer}].${head}`;
      const value: unknown = (entry as Record<string, unknown>)[String(head)];
      if (!Array.isArray(value) || value.length !== 4)
        throw new FormatError({ where: place, expected: "a pattern, two sizes and a score", received: describe(value) });
      const [pattern, first, second, score] = value as unknown[];
      if (typeof pattern !== "string" || !patterns.includes(pattern))
        throw new FormatError({ where: `${place}[0]`, expected: patterns.join(", "), received: describe(pattern) });
      if (typeof score !== "number" || !Number.isFinite(score))
        throw new FormatError({ where: `${place}[3]`, expected: "a number", received: describe(score) });
      const sizes = [wholeIn(`${place}[1]`, first, 0), wholeIn(`${place}[2]`, second, 0)];
      heads.push({ layer, head, pattern, sizes, score });
      const kind = `${pattern} ${sizes.join("/")}`;
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
    }
  }
  const most = [...counts].sort((a, b) => b[1] - a[1]).map(([kind, count]) => `${kind} in ${count}`);
  return {
    format: "minference",
    policy: checked(
      where,
      file.map((): LayerRule => ({ kind: "full" })),
      {},
    ),
    notExpressed: [
      `Prefill of ${heads.length} query heads by patterns: ${most.join(", ")} heads. A policy is for decoding, which is dense here.`,
    ],
    heads,
  };
}

export interface DuoSettings {
  /** Heads with a gate of at least this see everything; the others the first `sink` and last `recent` tokens. Default 0.5. */
  readonly threshold?: number | undefined;
  /** Instead of a threshold: the share of heads that stream, those with the smallest gates. */
  readonly sparsity?: number | undefined;
  /** Defaults 64 and 256: the files do not say. */
  readonly sink?: number | undefined;
  readonly recent?: number | undefined;
  readonly where?: string | undefined;
}

/**
 * Gates of DuoAttention (MIT): a line for each layer, a number for each KV head between tabs. A layer in which all heads
 * stream becomes one that attends to its first and last tokens; a layer in which some do stays full. Throws FormatError.
 */
export function importDuo(
  text: string,
  { threshold = 0.5, sparsity, sink = 64, recent = 256, where = "duo gates" }: DuoSettings = {},
): ImportedPolicy {
  const lines = text.split("\n");
  if (lines.at(-1)?.trim() !== "")
    throw new FormatError({ where, expected: "a line break at the end of the last layer", received: "a file that ends before it" });
  lines.pop();
  if (lines.length === 0) throw new FormatError({ where, expected: "a line for each layer", received: "none" });
  const gates = lines.map((line, layer) =>
    line.split("\t").map((part, head) => {
      const value = Number(part);
      if (part.trim() === "" || !Number.isFinite(value) || Math.abs(value) > 2)
        throw new FormatError({
          where: `${where}: line ${layer + 1}, head ${head}`,
          expected: "a gate, about 0 to 1",
          received: describe(part),
        });
      return value;
    }),
  );
  const width = gates[0]?.length as number;
  const odd = gates.findIndex((row) => row.length !== width);
  if (odd >= 0)
    throw new FormatError({ where: `${where}: line ${odd + 1}`, expected: `${width} heads`, received: `${gates[odd]?.length}` });
  wholeIn(`${where}: sink`, sink, 0);
  wholeIn(`${where}: recent`, recent, 1);
  const streams = streaming(where, gates, threshold, sparsity);
  const heads = gates.flatMap((row, layer) =>
    row.map((score, head): HeadPattern => {
      const own = streams[layer]?.[head] === true;
      return { layer, head, pattern: own ? "streaming" : "full", sizes: own ? [sink, recent] : [], score };
    }),
  );
  const rules = streams.map(
    (row): LayerRule => (row.every(Boolean) ? { kind: "anchor", k: sink + recent, refreshEvery: 1, attends: "list" } : { kind: "full" }),
  );
  const lost = heads.filter(({ layer, pattern }) => pattern === "streaming" && rules[layer]?.kind === "full");
  const mixed = [...new Set(lost.map(({ layer }) => layer))];
  return {
    format: "duo",
    policy: checked(where, rules, { granularity: 1, perHead: true, sink, recent }),
    notExpressed: [
      ...(lost.length > 0
        ? [
            `${lost.length} of ${heads.length} KV heads stream (${sink} first and ${recent} last tokens) in layers where others see everything, and see everything too: layers ${ranges(mixed)}.`,
          ]
        : []),
      `The ${sink} first and ${recent} last tokens of streaming heads are not in the file.`,
      "Streaming heads keep no other tokens in the cache, and stream in prefill too; a policy leaves the cache whole.",
    ],
    heads,
  };
}

function streaming(where: string, gates: readonly (readonly number[])[], threshold: number, sparsity: number | undefined): boolean[][] {
  if (sparsity === undefined) return gates.map((row) => row.map((gate) => gate < threshold));
  if (!(sparsity >= 0 && sparsity <= 1))
    throw new FormatError({ where: `${where}: sparsity`, expected: "a number from 0 to 1", received: describe(sparsity) });
  const width = gates[0]?.length as number;
  const all = gates.flat();
  const order = all.map((_, i) => i).sort((a, b) => (all[a] as number) - (all[b] as number) || a - b);
  const chosen = new Set(order.slice(0, Math.round(sparsity * all.length)));
  return gates.map((row, layer) => row.map((_, head) => chosen.has(layer * width + head)));
}
