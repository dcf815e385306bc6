/** A llama2.c model as a plain dense forward in float32, written for tests: no plans, no kernels, no pages. */
import { f16ToNumber, toF16, toQ8Rows } from "@hotset/core";

const { fround } = Math;

export type Sees = (position: number, token: number, layer: number, kvHead: number) => boolean;

export class PlainModel {
  #sees: Sees = () => true;
  readonly #sizes: { dim: number; hidden: number; layers: number; heads: number; kvHeads: number; vocab: number; context: number };
  readonly #weights: Record<string, Float32Array> = {};
  readonly #keys: Float32Array[][];
  readonly #values: Float32Array[][];

  /** `storedAs`: matrices and embeddings rounded as stored in these dtypes. */
  constructor(bytes: Uint8Array, storedAs: "f32" | "f16" | "q8_0" = "f32") {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const [dim, hidden, layers, heads, kvHeads, vocab, context] = Array.from({ length: 7 }, (_, i) => view.getInt32(4 * i, true)) as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    this.#sizes = { dim, hidden, layers, heads, kvHeads, vocab, context };
    const kv = (dim / heads) * kvHeads;
    let at = 28;
    const take = (name: string, count: number) => {
      const values = Float32Array.from({ length: count }, (_, i) => view.getFloat32(at + 4 * i, true));
      this.#weights[name] = name.startsWith("norm") ? values : rounded(values, storedAs);
      at += 4 * count;
    };
    take("embedding", vocab * dim);
    take("norm1", layers * dim);
    take("q", layers * dim * dim);
    take("k", layers * kv * dim);
    take("v", layers * kv * dim);
    take("o", layers * dim * dim);
    take("norm2", layers * dim);
    take("w1", layers * hidden * dim);
    take("w2", layers * dim * hidden);
    take("w3", layers * hidden * dim);
    take("norm", dim);
    this.#keys = Array.from({ length: layers }, () => []);
    this.#values = Array.from({ length: layers }, () => []);
  }

  /** The tokens that follow a prompt, each the most likely one; `sees`: what the token at a position attends to. */
  greedy(prompt: readonly number[], count: number, sees: Sees = () => true): number[] {
    this.#sees = sees;
    const out: number[] = [];
    let logits = new Float32Array();
    for (const [position, token] of prompt.entries()) logits = this.#forward(token, position);
    while (out.length < count) {
      const next = logits.indexOf(Math.max(...logits));
      out.push(next);
      if (prompt.length + out.length > this.#sizes.context) break;
      logits = this.#forward(next, prompt.length + out.length - 1);
    }
    return out;
  }

  #of(name: string, layer: number, length: number): Float32Array {
    return (this.#weights[name] as Float32Array).subarray(layer * length, (layer + 1) * length);
  }

  #forward(token: number, position: number): Float32Array<ArrayBuffer> {
    const { dim, hidden, layers, heads, kvHeads, vocab } = this.#sizes;
    const size = dim / heads;
    const kv = size * kvHeads;
    const x = this.#of("embedding", token, dim).slice();
    for (let layer = 0; layer < layers; layer++) {
      const n = norm(x, this.#of("norm1", layer, dim));
      const q = rotate(matrix(this.#of("q", layer, dim * dim), n), size, position);
      (this.#keys[layer] as Float32Array[]).push(rotate(matrix(this.#of("k", layer, kv * dim), n), size, position));
      (this.#values[layer] as Float32Array[]).push(matrix(this.#of("v", layer, kv * dim), n));
      const attended = new Float32Array(dim);
      for (let h = 0; h < heads; h++) {
        const head = Math.floor((h * kvHeads) / heads) * size;
        const scores = (this.#keys[layer] as Float32Array[]).map((key, t) => {
          let sum = 0;
          for (let i = 0; i < size; i++) sum = fround(sum + fround((q[h * size + i] as number) * (key[head + i] as number)));
          return this.#sees(position, t, layer, head / size) ? fround(sum / fround(Math.sqrt(size))) : Number.NEGATIVE_INFINITY;
        });
        const largest = Math.max(...scores);
        const weights = scores.map((score) => fround(Math.exp(score - largest)));
        const total = weights.reduce((sum, weight) => fround(sum + weight), 0);
        for (const [t, value] of (this.#values[layer] as Float32Array[]).entries())
          for (let i = 0; i < size; i++)
            attended[h * size + i] =
              (attended[h * size + i] as number) + fround((weights[t] as number) / total) * (value[head + i] as number);
      }
      add(x, matrix(this.#of("o", layer, dim * dim), attended));
      const m = norm(x, this.#of("norm2", layer, dim));
      const gate = matrix(this.#of("w1", layer, hidden * dim), m);
      const up = matrix(this.#of("w3", layer, hidden * dim), m);
      add(
        x,
        matrix(
          this.#of("w2", layer, dim * hidden),
          gate.map((value, i) => (value / (1 + Math.exp(-value))) * (up[i] as number)),
        ),
      );
    }
    return matrix((this.#weights.embedding as Float32Array).subarray(0, vocab * dim), norm(x, this.#weights.norm as Float32Array));
  }
}

function rounded(values: Float32Array, storedAs: "f32" | "f16" | "q8_0"): Float32Array {
  if (storedAs === "f32") return values;
  if (storedAs === "f16") return Float32Array.from(toF16(values), f16ToNumber);
  const blocks = toQ8Rows(values, 32);
  return values.map((_, i) => {
    const block = Math.floor(i / 32) * 34;
    const scale = f16ToNumber((blocks[block] as number) | ((blocks[block + 1] as number) << 8));
    return scale * (((blocks[block + 2 + (i % 32)] as number) << 24) >> 24);
  });
}

function matrix(weights: Float32Array, x: Float32Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(weights.length / x.length);
  for (let o = 0; o < out.length; o++) {
    let sum = 0;
    for (let i = 0; i < x.length; i++) sum = fround(sum + fround((weights[o * x.length + i] as number) * (x[i] as number)));
    out[o] = sum;
  }
  return out;
}

function norm(x: Float32Array, weight: Float32Array): Float32Array {
  let squares = 0;
  for (const value of x) squares = fround(squares + fround(value * value));
  const scale = fround(1 / Math.sqrt(fround(squares / x.length) + 1e-5));
  return x.map((value, i) => (weight[i] as number) * fround(value * scale));
}

function rotate(x: Float32Array, size: number, position: number): Float32Array {
  const out = x.slice();
  for (let i = 0; i < x.length; i += 2) {
    const angle = position / 10000 ** ((i % size) / size);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    out[i] = (x[i] as number) * cos - (x[i + 1] as number) * sin;
    out[i + 1] = (x[i] as number) * sin + (x[i + 1] as number) * cos;
  }
  return out;
}

function add(to: Float32Array, what: Float32Array): void {
  for (let i = 0; i < to.length; i++) to[i] = (to[i] as number) + (what[i] as number);
}
