/** The file of what was measured of a model's layers: profile.json. */
import { describe, FormatError } from "../../errors.js";

export interface LayerStatistics {
  /** Of each list: the least share of granules that holds 90 % of the attention mass. Small: sharp; large: flat. */
  readonly spread: readonly number[];
  /** Of each list: the share of the mass that its own list holds. */
  readonly kept: readonly number[];
  /** With its own lists: KL divergence of the weights from the dense ones in nats, mean over query heads. */
  readonly kl: number;
  /** With its own lists: root of the normalised mean squared error of the output. */
  readonly rnmse?: number;
  /** The same for the recomputed dense output against the recorded one: near 0, or the record is of another attention. */
  readonly denseError?: number;
  /** How much attention changes the stream. */
  readonly importance?: number;
}

/** A layer with the lists of an earlier one; matrices are [list of the layer][list of the source]. */
export interface PairStatistics {
  readonly source: number;
  readonly layer: number;
  /** Share of the layer's own list that is in the source's. */
  readonly overlap: readonly (readonly number[])[];
  /** Mass in the source's list over the mass in its own, mean over positions. */
  readonly mass: readonly (readonly number[])[];
  /** Mass in the source's list. */
  readonly kept: readonly (readonly number[])[];
  /** As in LayerStatistics, each KV head with the list of its own number. */
  readonly kl: number;
  readonly rnmse?: number;
}

export interface ProfileSettings {
  readonly tokens: number;
  readonly firstQuery: number;
  readonly stride: number;
  readonly queries: number;
  readonly k: number;
  readonly ratio: number;
  readonly granularity: number;
  readonly sink: number;
  readonly recent: number;
  readonly perHead: boolean;
  /** Texts that it was measured on; default 1. Of several, `over` says what numbers are: means, or those of the worst text. */
  readonly texts?: number;
  readonly over?: "mean" | "worst";
}

/** KL divergence of the next token's distribution, in nats, with one layer over its own lists and all others dense. */
export interface TokenKl {
  /** Tokens that were decoded with each layer. */
  readonly tokens: number;
  /** Of each layer: mean over the tokens, and the largest. */
  readonly layers: readonly { readonly mean: number; readonly worst: number }[];
}

export interface LayerProfile {
  readonly model: {
    readonly name?: string;
    readonly layers: number;
    readonly queryHeads: number;
    readonly kvHeads: number;
    readonly headDim: number;
  };
  readonly settings: ProfileSettings;
  readonly layers: readonly LayerStatistics[];
  /** Each pair of an earlier and a later layer, by source, then by layer. */
  readonly pairs: readonly PairStatistics[];
  /** Where a model was there to measure it. Version 2, as are several texts. */
  readonly tokenKl?: TokenKl;
}

const format = "hotset layer profile";
const newest = 2;

/** The text of a profile.json, of the least version that it needs. */
export function formatProfile(profile: LayerProfile): string {
  const version = profile.tokenKl || profile.settings.texts ? 2 : 1;
  return `${JSON.stringify({ format, version, ...profile })}\n`;
}

/** The pair of two layers. */
export const pairOf = ({ pairs, model: { layers } }: LayerProfile, source: number, layer: number): PairStatistics =>
  pairs[source * layers - (source * (source + 1)) / 2 + layer - source - 1] as PairStatistics;

/**
 * Reads a profile.json: its text, or what JSON.parse made of it. Throws FormatError where it is cut, damaged, not complete
 * or of a later version. `where` is named in errors.
 */
export function parseProfile(source: unknown, where = "profile"): LayerProfile {
  const at = new Reader(where);
  const root = at.fields(where, typeof source === "string" ? json(where, source) : source, [
    "format",
    "version",
    "model",
    "settings",
    "layers",
    "pairs",
    "tokenKl?",
    "about?",
  ]);
  if (root.format !== format)
    throw new FormatError({ where, expected: `a layer profile, with format ${JSON.stringify(format)}`, received: describe(root.format) });
  const { version } = root;
  if (version !== 1 && version !== newest)
    throw new FormatError({
      where: `${where}: version`,
      expected: `1 to ${newest}`,
      received: describe(version),
      hint: "Read it with the version of Hotset that wrote it, or measure again.",
    });
  const model = at.fields("model", root.model, ["name?", "layers", "queryHeads", "kvHeads", "headDim"]);
  if (model.name !== undefined && typeof model.name !== "string") throw at.wrong("model.name", "a text", model.name);
  const layers = at.whole("model.layers", model.layers, 1, 65536);
  const kvHeads = at.whole("model.kvHeads", model.kvHeads, 1, 65536);
  const queryHeads = at.whole("model.queryHeads", model.queryHeads, 1, 65536);
  if (queryHeads % kvHeads !== 0) throw at.wrong("model.queryHeads", `a multiple of ${kvHeads} KV heads`, queryHeads);
  const settings = readSettings(at, root.settings);
  if (version < 2 && (settings.texts !== undefined || root.tokenKl !== undefined))
    throw at.wrong("version", "2: tokenKl and several texts are of that", version);
  const lists = settings.perHead ? kvHeads : 1;
  const { layers: given, pairs } = root;
  if (!Array.isArray(given) || given.length !== layers) throw at.wrong("layers", `${layers} layers, as the model has`, given);
  const count = (layers * (layers - 1)) / 2;
  if (!Array.isArray(pairs) || pairs.length !== count) throw at.wrong("pairs", `all ${count} pairs of layers`, pairs);
  let place = 0;
  const read: PairStatistics[] = [];
  for (let from = 0; from < layers; from++)
    for (let to = from + 1; to < layers; to++, place++) read.push(readPair(at, `pairs[${place}]`, pairs[place], from, to, lists));
  return {
    model: {
      ...(model.name === undefined ? {} : { name: model.name as string }),
      layers,
      queryHeads,
      kvHeads,
      headDim: at.whole("model.headDim", model.headDim, 1, 65536),
    },
    settings,
    layers: given.map((one, layer) => readLayer(at, `layers[${layer}]`, one, lists)),
    pairs: read,
    ...(root.tokenKl === undefined ? {} : { tokenKl: readTokenKl(at, root.tokenKl, layers) }),
  };
}

function readTokenKl(at: Reader, value: unknown, layers: number): TokenKl {
  const { tokens, layers: given } = at.fields("tokenKl", value, ["tokens", "layers"]);
  if (!Array.isArray(given) || given.length !== layers) throw at.wrong("tokenKl.layers", `${layers} layers, as the model has`, given);
  return {
    tokens: at.whole("tokenKl.tokens", tokens, 1, 2 ** 31 - 2),
    layers: given.map((one, layer) => {
      const where = `tokenKl.layers[${layer}]`;
      const { mean, worst } = at.fields(where, one, ["mean", "worst"]);
      return { mean: at.number(`${where}.mean`, mean, 0), worst: at.number(`${where}.worst`, worst, 0) };
    }),
  };
}

function readSettings(at: Reader, value: unknown): ProfileSettings {
  const names = ["tokens", "firstQuery", "stride", "queries", "k", "ratio", "granularity", "sink", "recent", "perHead"];
  const own = at.fields("settings", value, [...names, "texts?", "over?"]);
  if ((own.texts === undefined) !== (own.over === undefined)) throw at.wrong("settings.over", "texts and over together", own.over);
  if (own.over !== undefined && own.over !== "mean" && own.over !== "worst") throw at.wrong("settings.over", '"mean" or "worst"', own.over);
  if (typeof own.perHead !== "boolean") throw at.wrong("settings.perHead", "true or false", own.perHead);
  const whole = (name: string, least: number, most = 2 ** 31 - 2) => at.whole(`settings.${name}`, own[name], least, most);
  const tokens = whole("tokens", 1);
  return {
    tokens,
    firstQuery: whole("firstQuery", 0, tokens - 1),
    stride: whole("stride", 1),
    queries: whole("queries", 1, tokens * (typeof own.texts === "number" ? own.texts : 1)),
    k: whole("k", 1),
    ratio: at.number("settings.ratio", own.ratio, 0, 1),
    granularity: whole("granularity", 1, 65536),
    sink: whole("sink", 0),
    recent: whole("recent", 0),
    perHead: own.perHead,
    ...(own.over === undefined ? {} : { texts: whole("texts", 1), over: own.over }),
  };
}

function readLayer(at: Reader, where: string, value: unknown, lists: number): LayerStatistics {
  const own = at.fields(where, value, ["spread", "kept", "kl", "rnmse?", "denseError?", "importance?"]);
  const optional = (name: string) => (own[name] === undefined ? {} : { [name]: at.number(`${where}.${name}`, own[name], 0) });
  return {
    spread: at.shares(`${where}.spread`, own.spread, lists),
    kept: at.shares(`${where}.kept`, own.kept, lists),
    kl: at.number(`${where}.kl`, own.kl, 0),
    ...optional("rnmse"),
    ...optional("denseError"),
    ...optional("importance"),
  };
}

function readPair(at: Reader, where: string, value: unknown, source: number, layer: number, lists: number): PairStatistics {
  const own = at.fields(where, value, ["source", "layer", "overlap", "mass", "kept", "kl", "rnmse?"]);
  if (own.source !== source || own.layer !== layer)
    throw at.wrong(where, `the pair of source ${source} and layer ${layer}`, `${own.source} and ${own.layer}`);
  const matrix = (name: "overlap" | "mass" | "kept"): number[][] => {
    const rows = own[name];
    if (!Array.isArray(rows) || rows.length !== lists) throw at.wrong(`${where}.${name}`, `${lists} rows, one for each list`, rows);
    return rows.map((row, i) => at.shares(`${where}.${name}[${i}]`, row, lists));
  };
  return {
    source,
    layer,
    overlap: matrix("overlap"),
    mass: matrix("mass"),
    kept: matrix("kept"),
    kl: at.number(`${where}.kl`, own.kl, 0),
    ...(own.rnmse === undefined ? {} : { rnmse: at.number(`${where}.rnmse`, own.rnmse, 0) }),
  };
}

function json(where: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FormatError({ where, expected: "JSON", received: (cause as Error).message, cause });
  }
}

/** Checks of values, each named by its place in the file. */
class Reader {
  readonly #where: string;
  constructor(where: string) {
    this.#where = where;
  }

  wrong(place: string, expected: string, received: unknown): FormatError {
    return new FormatError({
      where: place === this.#where ? place : `${this.#where}: ${place}`,
      expected,
      received: describe(received),
    });
  }

  /** An object with these fields and no others; a name that ends in ? may be absent. */
  fields(place: string, value: unknown, names: readonly string[]): Record<string, unknown> {
    const known = names.map((name) => name.replace("?", ""));
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw this.wrong(place, `an object with ${known.join(", ")}`, value);
    const other = Object.keys(value).find((name) => !known.includes(name));
    if (other !== undefined) throw this.wrong(place, known.join(", "), other);
    const absent = names.find((name) => !name.endsWith("?") && !Object.hasOwn(value, name));
    if (absent !== undefined) throw this.wrong(place, `a field ${absent}`, value);
    return value as Record<string, unknown>;
  }

  whole(place: string, value: unknown, least: number, most: number): number {
    if (!Number.isInteger(value)) throw this.wrong(place, `a whole number from ${least} to ${most}`, value);
    return this.number(place, value, least, most);
  }

  number(place: string, value: unknown, least: number, most = Number.MAX_VALUE): number {
    if (typeof value !== "number" || !(value >= least && value <= most))
      throw this.wrong(place, most === Number.MAX_VALUE ? `a number of at least ${least}` : `a number from ${least} to ${most}`, value);
    return value;
  }

  /** Numbers from 0 to 1. */
  shares(place: string, value: unknown, count: number): number[] {
    if (!Array.isArray(value) || value.length !== count) throw this.wrong(place, `${count} numbers`, value);
    return value.map((one, i) => this.number(`${place}[${i}]`, one, 0, 1));
  }
}
