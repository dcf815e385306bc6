/** The file that says what each layer of a model does when it decodes: policy.json. */
import { describe, FormatError, UnsupportedError } from "../errors.js";

/** Attends to everything, and makes no list. */
export interface FullRule {
  readonly kind: "full";
}
/** Weighs everything and lists what weighed most, for itself and for later layers. */
export interface AnchorRule {
  readonly kind: "anchor";
  /** Tokens that are listed: `k`, or `ratio` of the context where that is more. At least one of the two is there. */
  readonly k?: number;
  readonly ratio?: number;
  /** A new list every so many steps; in between it attends to its list, which grows with the context. Default 1. */
  readonly refreshEvery: number;
  /** "list": where it makes a list it attends to that, not to everything. Version 2. */
  readonly attends?: "list";
}
/** Attends to the tokens that an earlier anchor has listed. */
export interface ReuseRule {
  readonly kind: "reuse";
  /** The anchor: an earlier layer. */
  readonly source: number;
  /** For each KV head, the KV head of the source whose list it takes. Default: its own number. */
  readonly headMap?: readonly number[];
}
export type LayerRule = FullRule | AnchorRule | ReuseRule;

export interface LayerPolicy {
  readonly layers: readonly LayerRule[];
  /** Tokens that are listed together. Default 16. */
  readonly granularity: number;
  /** A list for each KV head (default), or one for all. */
  readonly perHead: boolean;
  /** First and last tokens that are always listed, within k. Defaults 0 and 1. */
  readonly sink: number;
  readonly recent: number;
  /** A sequence attends to everything while it is shorter. Default 0. */
  readonly minContext: number;
  /** What granules are listed by: their attention mass at the anchor. */
  readonly score: "mass";
}

export interface PolicyChecks {
  /** Named in errors: a path. Default "policy". */
  readonly where?: string | undefined;
  /** Layers and KV heads of the model, where they are known. */
  readonly layers?: number | undefined;
  readonly kvHeads?: number | undefined;
}

/** Of the format. A file without a version is of the first; one that uses a field of a later version says so. */
const newest = 2;
/** Scores of other systems: a policy may name them, but nothing here computes them. */
const otherScores = ["minmax", "meanstd", "hamming", "indexer"];
const rootFields = ["version", "layers", "granularity", "perHead", "sink", "recent", "minContext", "score", "about"];
const ruleFields = { full: ["kind"], anchor: ["kind", "k", "ratio", "refreshEvery", "attends"], reuse: ["kind", "source", "headMap"] };

/**
 * Reads a policy: the text of a policy.json, or what JSON.parse made of it. `about` may hold anything. Throws FormatError
 * where it is damaged or contradicts itself or the model, and UnsupportedError for a score that is not computed here.
 */
export function parsePolicy(source: unknown, { where = "policy", layers, kvHeads }: PolicyChecks = {}): LayerPolicy {
  const root = fields(where, typeof source === "string" ? json(where, source) : source, rootFields);
  if (!Array.isArray(root.layers) || root.layers.length === 0 || root.layers.length > 65536)
    throw new FormatError({ where: `${where}: layers`, expected: "a list of 1 to 65536 layers", received: describe(root.layers) });
  if (layers !== undefined && root.layers.length !== layers)
    throw new FormatError({
      where: `${where}: layers`,
      expected: `${layers} layers, as the model has`,
      received: `${root.layers.length}`,
      hint: "Make a policy for this model.",
    });
  const { version = 1, score = "mass", perHead = true } = root;
  if (typeof version !== "number" || !Number.isInteger(version) || version < 1 || version > newest)
    throw new FormatError({
      where: `${where}: version`,
      expected: `a version from 1 to ${newest}`,
      received: describe(version),
      hint: "A later version of Hotset reads later files.",
    });
  if (otherScores.includes(score as string))
    throw new UnsupportedError({
      where: `${where}: score`,
      expected: '"mass"',
      received: describe(score),
      hint: "Anchors weigh granules by their exact attention mass; estimates are not computed.",
    });
  if (score !== "mass") throw new FormatError({ where: `${where}: score`, expected: '"mass"', received: describe(score) });
  if (typeof perHead !== "boolean")
    throw new FormatError({ where: `${where}: perHead`, expected: "true or false", received: describe(perHead) });
  const rules: LayerRule[] = [];
  for (const [layer, rule] of root.layers.entries())
    rules.push(readRule(`${where}: layers[${layer}]`, rule, { before: rules, perHead, kvHeads, version }));
  return {
    layers: rules,
    granularity: whole(`${where}: granularity`, root.granularity ?? 16, 1, 65536),
    perHead,
    sink: whole(`${where}: sink`, root.sink ?? 0, 0),
    recent: whole(`${where}: recent`, root.recent ?? 1, 0),
    minContext: whole(`${where}: minContext`, root.minContext ?? 0, 0),
    score: "mass",
  };
}

/** The text of a policy.json, of the least version that it needs. `about` is for people: anything that JSON can hold. */
export function formatPolicy({ layers, ...rest }: LayerPolicy, about?: unknown): string {
  const version = layers.some((rule) => rule.kind === "anchor" && rule.attends) ? { version: 2 } : {};
  return `${JSON.stringify({ ...version, ...(about === undefined ? {} : { about }), layers, ...rest }, null, 2)}\n`;
}

interface Surroundings {
  /** The rules of the layers before. */
  readonly before: readonly LayerRule[];
  readonly perHead: boolean;
  readonly kvHeads: number | undefined;
  readonly version: number;
}

function json(where: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FormatError({ where, expected: "JSON", received: (cause as Error).message, cause });
  }
}

function readRule(where: string, value: unknown, { before, perHead, kvHeads, version }: Surroundings): LayerRule {
  const kind = (value as { kind?: unknown } | null)?.kind;
  if (kind !== "full" && kind !== "anchor" && kind !== "reuse")
    throw new FormatError({
      where: `${where}.kind`,
      expected: '"full", "anchor" or "reuse"',
      received: typeof value === "object" && value !== null ? describe(kind) : describe(value),
    });
  const rule = fields(where, value, ruleFields[kind]);
  if (kind === "full") return { kind };
  if (kind === "anchor") {
    const { k, ratio, refreshEvery = 1, attends = "all" } = rule;
    if (attends !== "all" && attends !== "list")
      throw new FormatError({ where: `${where}.attends`, expected: '"all" or "list"', received: describe(attends) });
    if (rule.attends !== undefined && version < 2)
      throw new FormatError({
        where: `${where}.attends`,
        expected: "version 2 at the top of the file",
        received: `version ${version}`,
      });
    if (k === undefined && ratio === undefined)
      throw new FormatError({ where, expected: "k (tokens) or ratio (of the context)", received: "neither" });
    if (ratio !== undefined && !(typeof ratio === "number" && ratio > 0 && ratio <= 1))
      throw new FormatError({ where: `${where}.ratio`, expected: "a number above 0, at most 1", received: describe(ratio) });
    return {
      kind,
      ...(k === undefined ? {} : { k: whole(`${where}.k`, k, 1) }),
      ...(ratio === undefined ? {} : { ratio: ratio as number }),
      refreshEvery: whole(`${where}.refreshEvery`, refreshEvery, 1),
      ...(attends === "list" ? { attends } : {}),
    };
  }
  const source = whole(`${where}.source`, rule.source, 0);
  if (source >= before.length)
    throw new FormatError({ where: `${where}.source`, expected: `a layer before ${before.length}`, received: `${source}` });
  if (before[source]?.kind !== "anchor")
    throw new FormatError({
      where: `${where}.source`,
      expected: "an anchor, which makes a list",
      received: `layer ${source}, which is ${before[source]?.kind === "full" ? "full" : "a reuse layer itself"}`,
    });
  return rule.headMap === undefined
    ? { kind, source }
    : { kind, source, headMap: readHeadMap(`${where}.headMap`, rule.headMap, perHead, kvHeads) };
}

function readHeadMap(where: string, value: unknown, perHead: boolean, kvHeads: number | undefined): number[] {
  if (!perHead) throw new FormatError({ where, expected: "perHead, a list for each head", received: "one list for all" });
  if (!Array.isArray(value) || value.length === 0 || (kvHeads !== undefined && value.length !== kvHeads))
    throw new FormatError({
      where,
      expected: kvHeads === undefined ? "a list with an entry for each KV head" : `a list of ${kvHeads} heads, one for each KV head`,
      received: describe(value),
    });
  return value.map((head, i) => whole(`${where}[${i}]`, head, 0, value.length - 1));
}

/** An object without other fields than these: a name misspelt would be a default in silence. */
function fields(where: string, value: unknown, names: readonly string[]): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new FormatError({ where, expected: `an object with ${names.join(", ")}`, received: describe(value) });
  const other = Object.keys(value).find((name) => !names.includes(name));
  if (other !== undefined) throw new FormatError({ where, expected: names.join(", "), received: `a field ${JSON.stringify(other)}` });
  return value as Record<string, unknown>;
}

function whole(where: string, value: unknown, least: number, most = 2 ** 31 - 2): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most)
    throw new FormatError({ where, expected: `a whole number from ${least} to ${most}`, received: describe(value) });
  return value;
}
