import type { Hotset } from "../hotset.js";
import { freedPages, type KeptTokens } from "../kv-cache/evict/kept.js";
import type { Tensor } from "../tensor.js";
import type { ModelConfig } from "./config.js";

const pageSize = 16;

/**
 * The keys and values of one sequence, in pages that all layers share the numbers of: page p of each layer holds the same
 * tokens. Invariants: the first ceil(length / pageSize) entries of the table are pages, none twice, and the others are
 * free; length is at most pages * pageSize.
 */
export class SequenceCache {
  readonly pageSize = pageSize;
  readonly pages: number;
  /** Of each layer: [pages, kvHeads, pageSize, headDim]. */
  readonly keys: readonly Tensor<"f32">[];
  readonly values: readonly Tensor<"f32">[];
  /** [1, pages] and [1]. */
  readonly pageTable: Tensor<"i32">;
  readonly lengths: Tensor<"i32">;
  readonly #kvHeads: number;
  readonly #headDim: number;
  /** The next one to be taken is the last. */
  #free: number[] = [];
  #peak = 0;

  constructor(hotset: Hotset, backend: string, { layers, kvHeads, headDim }: ModelConfig, tokens: number) {
    this.pages = Math.ceil(tokens / pageSize);
    this.#kvHeads = kvHeads;
    this.#headDim = headDim;
    const shape = [this.pages, kvHeads, pageSize, headDim];
    this.keys = Array.from({ length: layers }, () => hotset.alloc("f32", shape, backend));
    this.values = Array.from({ length: layers }, () => hotset.alloc("f32", shape, backend));
    this.pageTable = hotset.alloc("i32", [1, this.pages], backend);
    this.lengths = hotset.alloc("i32", [1], backend);
    this.clear();
  }

  /** Pages that hold a token, now and at most at a time. */
  get pagesInUse(): number {
    return this.pages - this.#free.length;
  }
  get peakPages(): number {
    return this.#peak;
  }
  /** Of one page: keys and values of all layers. */
  get pageBytes(): number {
    return 2 * this.keys.length * this.#kvHeads * pageSize * this.#headDim * 4;
  }

  /** Tokens that are held. */
  get length(): number {
    return this.lengths.data[0] as number;
  }

  /** Makes room for so many tokens behind those that are held; their rows are written by `write`, layer by layer. */
  grow(tokens: number): void {
    const length = this.length + tokens;
    for (let i = this.pagesInUse; i < Math.ceil(length / pageSize); i++) this.pageTable.data[i] = this.#free.pop() as number;
    this.lengths.data[0] = length;
    this.#peak = Math.max(this.#peak, this.pagesInUse);
  }

  /** The rows of these tokens, as many in each head, are in front now in each layer: frees the pages behind, and says how many. */
  shrink(kept: KeptTokens): number {
    const freed = freedPages(this.pageTable.data.subarray(0, this.pagesInUse), kept, pageSize);
    this.#free.push(...freed.reverse());
    this.lengths.data[0] = kept.maxKept;
    return freed.length;
  }

  clear(): void {
    this.lengths.data[0] = 0;
    this.#free = Array.from({ length: this.pages }, (_, i) => this.pages - 1 - i);
  }

  /** Keys and values [tokens, kvHeads, headDim] of the last tokens of a layer. */
  write(layer: number, tokens: number, keys: Float32Array, values: Float32Array): void {
    const [toKeys, toValues] = [(this.keys[layer] as Tensor<"f32">).data, (this.values[layer] as Tensor<"f32">).data];
    const table = this.pageTable.data;
    const first = this.length - tokens;
    for (let t = 0; t < tokens; t++) {
      const page = table[Math.floor((first + t) / pageSize)] as number;
      for (let head = 0; head < this.#kvHeads; head++) {
        const from = (t * this.#kvHeads + head) * this.#headDim;
        const to = ((page * this.#kvHeads + head) * pageSize + ((first + t) % pageSize)) * this.#headDim;
        toKeys.set(keys.subarray(from, from + this.#headDim), to);
        toValues.set(values.subarray(from, from + this.#headDim), to);
      }
    }
  }

  dispose(): void {
    for (const tensor of [...this.keys, ...this.values, this.pageTable, this.lengths]) tensor.dispose();
  }
}
