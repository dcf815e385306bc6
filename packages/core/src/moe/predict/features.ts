/** What is known of a token's routing before its first layer runs: its vocabulary number, and what came before it. */
import type { MoeTrace, Sequence } from "../trace/trace.js";

/** Vocabulary number of a token that the source did not record. */
export const unknownToken = 2 ** 32 - 1;

/** Blocks of a feature row, each [experts]; a constant 1 follows. */
export const featureBlocks = { token: 0, pair: 1, below: 2, above: 3, previous: 4, ema: 5, frequency: 6 } as const;
export const featureCount = (experts: number): number => 7 * experts + 1;

/** What the tokens of a trace are: vocabulary numbers; and each with the one before it in its sequence. */
export interface TokenKeys {
  readonly token: readonly number[];
  readonly pair: readonly (string | undefined)[];
}

export function tokenKeys({ tokens, tokenIds, sequences }: MoeTrace): TokenKeys {
  const token = Array.from({ length: tokens }, (_, t) => tokenIds?.[t] ?? unknownToken);
  const pair = new Array<string | undefined>(tokens).fill(undefined);
  for (const { start, length } of sequences)
    for (let t = start + 1; t < start + length; t++) pair[t] = pairKey(token[t - 1] as number, token[t] as number);
  return { token, pair };
}

/** Undefined where one of the two is not known. */
export const pairKey = (before: number, token: number): string | undefined =>
  before === unknownToken || token === unknownToken ? undefined : `${before} ${token}`;

/**
 * Which experts tokens of one kind used, on average, over the tokens that were counted; drawn towards a wider mean:
 * (count + 4 wider) / (n + 4).
 */
export class PathTable<K> {
  readonly #layers: number;
  readonly #experts: number;
  readonly #row = new Map<K, number>();
  readonly #seen: number[] = [];
  /** [kinds, layers, experts] */
  readonly #counts: Uint16Array;
  /** [layers, experts]: the mean of all tokens. */
  readonly mean: Float64Array;

  /** `key`: the kind of each token of the trace. */
  constructor({ layers, experts, topK, ids }: MoeTrace, tokens: Int32Array, key: (t: number) => K | undefined) {
    this.#layers = layers;
    this.#experts = experts;
    for (const t of tokens) {
      const kind = key(t);
      if (kind !== undefined && !this.#row.has(kind)) this.#row.set(kind, this.#seen.push(0) - 1);
    }
    this.#counts = new Uint16Array(this.#row.size * layers * experts);
    this.mean = new Float64Array(layers * experts);
    for (const t of tokens) {
      let row = this.#rowOf(key(t));
      // Beyond what a count can hold, more tokens of a kind would teach nothing new.
      if (row >= 0 && this.#seen[row] === 0xffff) row = -1;
      if (row >= 0) this.#seen[row] = (this.#seen[row] as number) + 1;
      for (let i = 0; i < layers * topK; i++) {
        const at = Math.floor(i / topK) * experts + (ids[t * layers * topK + i] as number);
        this.mean[at] = (this.mean[at] as number) + 1 / tokens.length;
        if (row >= 0) this.#counts[row * layers * experts + at] = (this.#counts[row * layers * experts + at] as number) + 1;
      }
    }
  }

  #rowOf(kind: K | undefined): number {
    return kind === undefined ? -1 : (this.#row.get(kind) ?? -1);
  }

  /**
   * Writes the row [experts] of a kind in a layer. `wider` and `from`: where the mean lies that it is drawn towards.
   * `own`: what the token used itself, to leave it out where it was counted.
   */
  write(
    layer: number,
    kind: K | undefined,
    wider: ArrayLike<number>,
    from: number,
    out: Float32Array,
    at: number,
    own?: ArrayLike<number>,
  ): void {
    const row = this.#rowOf(kind);
    const n = row < 0 ? 0 : (this.#seen[row] as number) - (own ? 1 : 0);
    for (let e = 0; e < this.#experts; e++) {
      const count = row < 0 ? 0 : (this.#counts[(row * this.#layers + layer) * this.#experts + e] as number);
      out[at + e] = (count + 4 * (wider[from + e] as number)) / (n + 4);
    }
    if (own && row >= 0)
      for (let k = 0; k < own.length; k++) out[at + (own[k] as number)] = (out[at + (own[k] as number)] as number) - 1 / (n + 4);
  }
}

/**
 * What a sequence has used so far, layer by layer: the token before, a fading mean, and the mean of all. The means begin at
 * that of all sequences, and are drawn towards it as a path is.
 */
export class RoutingHistory {
  readonly #experts: number;
  readonly #decay: number;
  /** [layers, 3, experts]: as the feature blocks lie; of the last, counts. */
  readonly #blocks: Float64Array;
  readonly #tokens: Float64Array;
  /** [layers, experts]: the mean of all sequences. */
  readonly #mean: Float64Array;

  constructor(layers: number, experts: number, decay: number, mean: Float64Array) {
    this.#experts = experts;
    this.#decay = decay;
    this.#blocks = new Float64Array(layers * 3 * experts);
    this.#tokens = new Float64Array(layers);
    this.#mean = mean;
    this.reset();
  }

  /** A new sequence begins. */
  reset(): void {
    const n = this.#experts;
    this.#blocks.fill(0);
    this.#tokens.fill(0);
    for (let i = 0; i < this.#mean.length; i++) this.#blocks[(Math.floor(i / n) * 3 + 1) * n + (i % n)] = this.#mean[i] as number;
  }

  /** A token used these experts in a layer. */
  observe(layer: number, used: ArrayLike<number>): void {
    const n = this.#experts;
    const base = layer * 3 * n;
    const blocks = this.#blocks;
    blocks.fill(0, base, base + n);
    for (let e = 0; e < n; e++) blocks[base + n + e] = (blocks[base + n + e] as number) * this.#decay;
    for (let k = 0; k < used.length; k++) {
      const at = base + (used[k] as number);
      blocks[at] = 1;
      blocks[at + n] = (blocks[at + n] as number) + 1 - this.#decay;
      blocks[at + 2 * n] = (blocks[at + 2 * n] as number) + 1;
    }
    this.#tokens[layer] = (this.#tokens[layer] as number) + 1;
  }

  /** Writes the blocks of a layer, what the token before used in the layers below and above it, and the constant. */
  write(layer: number, out: Float32Array, at: number): void {
    const n = this.#experts;
    const base = layer * 3 * n;
    for (const neighbour of [layer - 1, layer + 1]) {
      const there = neighbour >= 0 && neighbour < this.#tokens.length;
      for (let e = 0; e < n; e++) out[at + e] = there ? (this.#blocks[neighbour * 3 * n + e] as number) : 0;
      at += n;
    }
    const tokens = this.#tokens[layer] as number;
    for (let i = 0; i < 2 * n; i++) out[at + i] = this.#blocks[base + i] as number;
    for (let e = 0; e < n; e++)
      out[at + 2 * n + e] = ((this.#blocks[base + 2 * n + e] as number) + 4 * (this.#mean[layer * n + e] as number)) / (tokens + 4);
    out[at + 3 * n] = 1;
  }
}

/** Every token of some sequences, in order. */
export function tokensOf(sequences: readonly Sequence[]): Int32Array {
  const out = new Int32Array(sequences.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const { start, length } of sequences) for (let t = start; t < start + length; t++) out[at++] = t;
  return out;
}
