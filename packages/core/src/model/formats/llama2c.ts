/** Models of llama2.c: a header of seven numbers, then f32 weights; and its tokenizer.bin. */
import type { LayerWeights, LoadedModel, ModelConfig, Tokenizer, Weight } from "../config.js";
import { PieceTokenizer } from "../tokenizer/pieces.js";
import { Reader } from "./reader.js";

const where = "llama2.c model";

/** Whether a file may be one: seven plausible sizes at its start. */
export function looksLikeLlama2c(bytes: Uint8Array): boolean {
  if (bytes.length < 28) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, 28);
  const sizes = Array.from({ length: 7 }, (_, i) => Math.abs(view.getInt32(4 * i, true)));
  return sizes.every((size) => size > 0 && size < 2 ** 24);
}

/** Reads a model in llama2.c's first format (export.py version 0). Throws FormatError. */
export function readLlama2c(bytes: Uint8Array): LoadedModel {
  const reader = new Reader(bytes, where);
  const names = ["dim", "hidden dim", "layers", "heads", "KV heads", "vocabulary", "context"] as const;
  const [dim, hiddenDim, layers, heads, kvHeads, signedVocab, context] = names.map((name) => reader.i32(name)) as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const vocab = Math.abs(signedVocab);
  for (const [i, size] of [dim, hiddenDim, layers, heads, kvHeads, vocab, context].entries())
    if (!(size >= 1 && size < 2 ** 24)) throw reader.damaged(`${names[i]} from 1 to ${2 ** 24 - 1}`, `${size}`);
  if (dim % heads !== 0 || (dim / heads) % 2 !== 0)
    throw reader.damaged("an even share of dim for each head", `dim ${dim}, ${heads} heads`);
  if (heads % kvHeads !== 0) throw reader.damaged("heads to be a multiple of KV heads", `${heads} and ${kvHeads}`);
  const headDim = dim / heads;
  const kvDim = kvHeads * headDim;
  const perLayer = 2 * dim + 2 * dim * dim + 2 * kvDim * dim + 3 * dim * hiddenDim;
  const shared = signedVocab > 0;
  const floats = vocab * dim * (shared ? 1 : 2) + layers * perLayer + dim + context * headDim;
  if (reader.left !== 4 * floats) throw reader.damaged(`a file of ${28 + 4 * floats} bytes by its header`, `${bytes.length} bytes`);

  const f32 = (data: Float32Array): Weight => ({ dtype: "f32", data });
  const each = (count: number, what: string): Float32Array[] => Array.from({ length: layers }, () => reader.floats(count, what));
  const embedding = f32(reader.floats(vocab * dim, "embeddings"));
  const parts = {
    attentionNorm: each(dim, "attention norms"),
    query: each(dim * dim, "query weights"),
    key: each(kvDim * dim, "key weights"),
    value: each(kvDim * dim, "value weights"),
    attentionOut: each(dim * dim, "attention output weights"),
    feedForwardNorm: each(dim, "feed-forward norms"),
    gate: each(hiddenDim * dim, "gate weights"),
    down: each(dim * hiddenDim, "down weights"),
    up: each(hiddenDim * dim, "up weights"),
  };
  const norm = reader.floats(dim, "final norm");
  // Sines and cosines, which are computed here.
  reader.skip(4 * context * headDim, "rotary tables");
  const output = shared ? embedding : f32(reader.floats(vocab * dim, "output weights"));
  const layerWeights = Array.from({ length: layers }, (_, i): LayerWeights => {
    const [attentionNorm, feedForwardNorm] = [parts.attentionNorm[i] as Float32Array, parts.feedForwardNorm[i] as Float32Array];
    const weight = (name: "query" | "key" | "value" | "attentionOut" | "gate" | "down" | "up"): Weight =>
      f32(parts[name][i] as Float32Array);
    return {
      attentionNorm,
      query: weight("query"),
      key: weight("key"),
      value: weight("value"),
      attentionOut: weight("attentionOut"),
      feedForwardNorm,
      gate: weight("gate"),
      up: weight("up"),
      down: weight("down"),
    };
  });
  const config: ModelConfig = {
    format: "llama2.c",
    dim,
    layers,
    heads,
    kvHeads,
    headDim,
    hiddenDim,
    vocab,
    context,
    normEpsilon: 1e-5,
    ropeTheta: 10000,
    ropePairs: "interleaved",
    rotaryPairs: headDim / 2,
  };
  return { config, weights: { embedding, layers: layerWeights, norm, output } };
}

/** Reads llama2.c's tokenizer.bin for a vocabulary of `vocab` tokens. Throws FormatError. */
export function readLlama2cTokenizer(bytes: Uint8Array, vocab: number): Tokenizer {
  const reader = new Reader(bytes, "llama2.c tokenizer");
  const longest = reader.u32("longest token");
  const pieces: Uint8Array[] = [];
  const scores = new Float64Array(vocab);
  for (let id = 0; id < vocab; id++) {
    scores[id] = reader.f32(`score of token ${id}`);
    const length = reader.u32(`length of token ${id}`);
    if (length > longest) throw reader.damaged(`token ${id} of at most ${longest} bytes`, `${length}`);
    if (Number.isNaN(scores[id])) throw reader.damaged(`a score of token ${id}`, "NaN");
    pieces.push(reader.bytes(length, `token ${id}`));
  }
  if (reader.left !== 0) throw reader.damaged(`${vocab} tokens, as the model has`, `${reader.left} bytes more`);
  // The tokens of single bytes follow the three special ones.
  const single = Array.from({ length: 256 }, (_, byte) => 3 + byte);
  return new PieceTokenizer({
    pieces,
    scores,
    begin: 1,
    ends: [1, 2],
    unknown: 0,
    bytes: single,
    spacePrefix: true,
    where: "llama2.c tokenizer",
  });
}
