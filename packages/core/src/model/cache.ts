import type { Hotset } from "../hotset.js";
import { append } from "../kv-cache/append/spec.js";
import { freedPages, type KeptTokens } from "../kv-cache/evict/kept.js";
import type { Step } from "../step.js";
import type { Tensor } from "../tensor.js";
import type { ModelConfig } from "./config.js";
import { Written } from "./written.js";

export const pageSize = 16;

/** Where new keys and values come from, and how many tokens at most enter at a time. */
export interface NewTokens {
  /** [most, kvHeads, headDim]. */
  readonly keys: Tensor<"f32">;
  readonly values: Tensor<"f32">;
  readonly most: number;
}

/** The sizes of `kv-cache/append` for a cache of so many pages. */
export const appendAxes = ({ kvHeads, headDim }: ModelConfig, pages: number, tokens: number) =>
  ({ tokens, kvHeads, headDim, valueDim: headDim, pages, pageSize }) as const;

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
  readonly #config: ModelConfig;
  /** [1, pages], [1], and where the tokens of a run go: [1] for a single one, else [most]. */
  readonly #table: Written<"i32">;
  readonly #lengths: Written<"i32">;
  readonly #slot: Written<"i32">;
  readonly #slots: Written<"i32">;
  readonly #held: { dispose(): void }[] = [];
  /** Of each layer, for a single token and for more. */
  #writeOne: readonly Step<typeof append>[] = [];
  #writeMany: readonly Step<typeof append>[] = [];
  /** Tokens that entered last, and those that `writeMany` is set to. */
  #entered = 0;
  #set = 0;
  /** The next one to be taken is the last. */
  #free: number[] = [];
  #peak = 0;

  private constructor(hotset: Hotset, backend: string, config: ModelConfig, tokens: number, most: number) {
    const { layers, kvHeads, headDim } = config;
    this.pages = Math.ceil(tokens / pageSize);
    this.#config = config;
    const shape = [this.pages, kvHeads, pageSize, headDim];
    const keep = <T extends { dispose(): void }>(value: T): T => {
      this.#held.push(value);
      return value;
    };
    try {
      this.keys = Array.from({ length: layers }, () => keep(hotset.alloc("f32", shape, backend)));
      this.values = Array.from({ length: layers }, () => keep(hotset.alloc("f32", shape, backend)));
      const written = (...sizes: number[]) => keep(new Written(hotset, backend, "i32", sizes));
      this.#table = written(1, this.pages);
      this.#lengths = written(1);
      this.#slot = written(1);
      this.#slots = written(most);
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.clear();
  }

  /** `room`: tokens that it holds at most. Throws HotsetError: `memory`, where there is none left. */
  static async create(hotset: Hotset, backend: string, config: ModelConfig, room: number, from: NewTokens): Promise<SequenceCache> {
    const cache = new SequenceCache(hotset, backend, config, room, from.most);
    try {
      cache.#writeOne = await cache.#writing(hotset, backend, 1, cache.#slot, from);
      cache.#writeMany = await cache.#writing(hotset, backend, from.most, cache.#slots, from);
      cache.#set = from.most;
    } catch (error) {
      cache.dispose();
      throw error;
    }
    return cache;
  }

  /** [1, pages] and [1], in the backend's memory. */
  get pageTable(): Tensor<"i32"> {
    return this.#table.tensor;
  }
  get lengths(): Tensor<"i32"> {
    return this.#lengths.tensor;
  }
  /** The same on the host, to be read only. */
  get hostTable(): Int32Array {
    return this.#table.data;
  }
  get hostLengths(): Int32Array {
    return this.#lengths.data;
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
    const { kvHeads, headDim } = this.#config;
    return 2 * this.keys.length * kvHeads * pageSize * headDim * 4;
  }

  /** Tokens that are held. */
  get length(): number {
    return this.#lengths.data[0] as number;
  }

  /** Makes room for so many tokens behind those that are held; their rows are written by `write`, layer by layer. */
  grow(tokens: number): void {
    const first = this.length;
    const length = first + tokens;
    const { data: table } = this.#table;
    const pages = this.pagesInUse;
    for (let i = pages; i < Math.ceil(length / pageSize); i++) table[i] = this.#free.pop() as number;
    if (this.pagesInUse !== pages) this.#table.send();
    this.#lengths.data[0] = length;
    this.#lengths.send();
    const slots = tokens === 1 ? this.#slot : this.#slots;
    for (let t = 0; t < tokens; t++) {
      const at = first + t;
      slots.data[t] = (table[Math.floor(at / pageSize)] as number) * pageSize + (at % pageSize);
    }
    slots.send();
    this.#entered = tokens;
    if (tokens > 1 && tokens !== this.#set) {
      for (const step of this.#writeMany) step.set("tokens", tokens);
      this.#set = tokens;
    }
    this.#peak = Math.max(this.#peak, this.pagesInUse);
  }

  /** Writes a layer's keys and values of the tokens that `grow` made room for. */
  write(layer: number): void {
    (this.#entered === 1 ? this.#writeOne : this.#writeMany)[layer]?.run();
  }

  /** The rows of these tokens, as many in each head, are in front now in each layer: frees the pages behind, and says how many. */
  shrink(kept: KeptTokens): number {
    const freed = freedPages(this.#table.data.subarray(0, this.pagesInUse), kept, pageSize);
    this.#free.push(...freed.reverse());
    this.#lengths.data[0] = kept.maxKept;
    return freed.length;
  }

  clear(): void {
    this.#lengths.data[0] = 0;
    this.#free = Array.from({ length: this.pages }, (_, i) => this.pages - 1 - i);
  }

  /** The steps that write, for a wait for each. */
  get steps(): readonly Step<typeof append>[] {
    return [...this.#writeOne, ...this.#writeMany];
  }

  dispose(): void {
    for (const one of this.#held.splice(0)) one.dispose();
  }

  async #writing(hotset: Hotset, backend: string, tokens: number, slots: Written<"i32">, from: NewTokens): Promise<Step<typeof append>[]> {
    const { kvHeads, headDim } = this.#config;
    const plan = await hotset.plan(append, appendAxes(this.#config, this.pages, tokens), { keyPages: "f32" }, { backend });
    const keys = from.keys.view([tokens, kvHeads, headDim]);
    const values = from.values.view([tokens, kvHeads, headDim]);
    return this.keys.map((keyPages, layer) => {
      const step = plan.bind({ keys, values, slots: slots.tensor, keyPages, valuePages: this.values[layer] as Tensor<"f32"> });
      this.#held.push(step);
      return step;
    });
  }
}
