/** What the layers of a model attended with, over one text. */
import { HotsetError, ShapeError } from "../../errors.js";

export interface LayerRecord {
  /** [tokens, queryHeads, headDim] and [tokens, kvHeads, headDim], as attention takes them: turned by their positions. */
  readonly queries: Float32Array;
  readonly keys: Float32Array;
  /** [tokens, kvHeads, headDim]. */
  readonly values?: Float32Array | undefined;
  /** [tokens, queryHeads, headDim] What attention gave; dense, for all tokens. */
  readonly out?: Float32Array | undefined;
}

export interface AttentionRecord {
  /** Named in messages and files: a model's name or path. */
  readonly model?: string | undefined;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly tokens: number;
  /** What dot products are multiplied by. Default 1 / sqrt(headDim). */
  readonly scale?: number | undefined;
  readonly layers: readonly LayerRecord[];
}

/** Throws ShapeError where sizes do not fit each other, and HotsetError where a value is not finite. */
export function checkRecord(where: string, record: AttentionRecord): void {
  const { queryHeads, kvHeads, headDim, tokens, layers, scale } = record;
  for (const [name, size] of Object.entries({ queryHeads, kvHeads, headDim, tokens, layers: layers.length }))
    if (!Number.isInteger(size) || size < 1)
      throw new ShapeError({ where: `${where}: ${name}`, expected: "a whole number of at least 1", received: `${size}` });
  if (queryHeads % kvHeads !== 0)
    throw new ShapeError({ where, expected: `queryHeads a multiple of ${kvHeads} KV heads`, received: `${queryHeads}` });
  if (scale !== undefined && !Number.isFinite(scale))
    throw new HotsetError("argument", { where: `${where}: scale`, expected: "a finite number", received: `${scale}` });
  for (const [layer, { queries, keys, values, out }] of layers.entries())
    for (const [name, data, heads] of [
      ["queries", queries, queryHeads],
      ["keys", keys, kvHeads],
      ["values", values, kvHeads],
      ["out", out, queryHeads],
    ] as const) {
      if (data === undefined) continue;
      if (data.length !== tokens * heads * headDim)
        throw new ShapeError({
          where: `${where}: ${name} of layer ${layer}`,
          expected: `${tokens * heads * headDim} values: [${tokens}, ${heads}, ${headDim}]`,
          received: `${data.length}`,
        });
      const bad = data.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0)
        throw new HotsetError("argument", {
          where: `${where}: ${name}[${bad}] of layer ${layer}`,
          expected: "a finite number",
          received: `${data[bad]}`,
        });
    }
}
